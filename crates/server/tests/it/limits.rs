//! What is refused: broken input, browsers, too many clients.

use crate::client::{encode, start, start_with};

#[test]
fn broken_input_is_told_and_closed_after_what_came_before() {
    let server = start();
    for (input, text) in [
        (&b"PING\r\n*1\r\n$x\r\n"[..], "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n!", "-ERR Protocol error: expected '$', got '!'\r\n"),
        (b"SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ] {
        let mut client = server.connect();
        client.send(input);
        assert_eq!(client.rest(), text);
    }
}

#[test]
fn a_browser_is_hung_up_on() {
    let server = start();
    let mut browser = server.connect();
    browser.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n");
    assert_eq!(browser.rest(), "");
    let mut browser = server.connect();
    browser.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n");
    assert_eq!(browser.rest(), "-ERR wrong number of arguments for 'get' command\r\n");
    assert_eq!(server.connect().call("EXISTS k"), ":0|");
}

#[test]
fn one_client_too_many() {
    let server = start_with(|settings| settings.max_clients = 1);
    let mut first = server.connect();
    assert_eq!(first.call("PING"), "+PONG|");
    assert_eq!(server.connect().rest(), "-ERR max number of clients reached\r\n");
    assert_eq!(first.call("CONFIG SET maxclients 2"), "+OK|");
    assert_eq!(server.connect().call("PING"), "+PONG|");
}

#[test]
fn long_words_up_to_the_limit() {
    let server = start_with(|settings| settings.bulk_bytes_max = 1 << 20);
    let mut client = server.connect();
    let long = vec![b'x'; 1 << 20];
    client.send(&encode(&[b"SET", b"k", &long]));
    assert_eq!(client.reply(), "+OK|");
    client.send(&encode(&[b"GET", b"k"]).repeat(20));
    for _ in 0..20 {
        assert_eq!(client.reply().len(), "$1048576|".len() + long.len() + 1);
    }
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n");
    assert_eq!(client.rest(), "-ERR Protocol error: invalid bulk length\r\n");
}
