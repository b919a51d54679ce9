//! `MULTI`, `EXEC`, `WATCH`: errors and effects as Redis has them.

use crate::client::start;

#[test]
fn queued_commands_run_as_one() {
    let server = start();
    let mut client = server.connect();
    client.script(&[
        ("EXEC", "-ERR EXEC without MULTI|"),
        ("DISCARD", "-ERR DISCARD without MULTI|"),
        ("MULTI", "+OK|"),
        ("MULTI", "-ERR MULTI calls can not be nested|"),
        ("WATCH k", "-ERR WATCH inside MULTI is not allowed|"),
        ("SET a 1", "+QUEUED|"),
        ("INCR a", "+QUEUED|"),
        ("PING", "+QUEUED|"),
        ("SELECT 3", "+QUEUED|"),
        ("SET b 3", "+QUEUED|"),
        ("EXEC", "*5|+OK|:2|+PONG|+OK|+OK|"),
        ("GET b", "$1|3|"),
        ("SELECT 0", "+OK|"),
        ("GET b", "$-1|"),
        ("GET a", "$1|2|"),
        ("MULTI", "+OK|"),
        ("EXEC", "*0|"),
    ]);
}

#[test]
fn errors_before_exec_abort_and_errors_within_do_not() {
    let server = start();
    let mut client = server.connect();
    client.script(&[
        ("SET text x", "+OK|"),
        ("MULTI", "+OK|"),
        ("SET a 1", "+QUEUED|"),
        ("GET", "-ERR wrong number of arguments for 'get' command|"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.|"),
        ("GET a", "$-1|"),
        ("MULTI", "+OK|"),
        ("SHUTDOWN", "-ERR Command not allowed inside a transaction|"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.|"),
        ("MULTI", "+OK|"),
        ("INCR text", "+QUEUED|"),
        ("SET a 2", "+QUEUED|"),
        ("EXEC", "*2|-ERR value is not an integer or out of range|+OK|"),
        ("GET a", "$1|2|"),
        ("MULTI", "+OK|"),
        ("SET a 9", "+QUEUED|"),
        ("DISCARD", "+OK|"),
        ("GET a", "$1|2|"),
    ]);
}

#[test]
fn a_watched_key_that_changed_stops_it() {
    let server = start();
    let (mut one, mut two) = (server.connect(), server.connect());
    one.script(&[("WATCH k other", "+OK|"), ("MULTI", "+OK|"), ("SET k 1", "+QUEUED|")]);
    two.script(&[("SET k 2", "+OK|")]);
    one.script(&[
        ("EXEC", "*-1|"),
        ("GET k", "$1|2|"),
        ("MULTI", "+OK|"),
        ("SET k 3", "+QUEUED|"),
        ("EXEC", "*1|+OK|"),
        ("WATCH k", "+OK|"),
    ]);
    two.script(&[("SET k 4", "+OK|")]);
    one.script(&[("UNWATCH", "+OK|"), ("MULTI", "+OK|"), ("GET k", "+QUEUED|"), ("EXEC", "*1|$1|4|")]);
}
