//! Ending: what was read is answered, then all connections are closed.

use crate::client::start;

#[test]
fn the_command_ends_the_server() {
    let mut server = start();
    let mut idle = server.connect();
    assert_eq!(idle.call("PING"), "+PONG|");
    let mut client = server.connect();
    assert_eq!(client.call("SHUTDOWN ABORT"), "-ERR No shutdown in progress.|");
    assert_eq!(client.call("SHUTDOWN SAVE NOSAVE"), "-ERR syntax error|");
    client.send(b"SET k v\r\nSHUTDOWN\r\nSET k w\r\n");
    assert_eq!(client.rest(), "+OK\r\n");
    server.join();
    assert_eq!(idle.rest(), "");
}

#[test]
fn the_handle_ends_the_server() {
    let mut server = start();
    let mut client = server.connect();
    assert_eq!(client.call("PING"), "+PONG|");
    server.shutdown.shutdown();
    server.join();
    assert_eq!(client.rest(), "");
}
