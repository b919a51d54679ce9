use super::*;

fn call(
    from: &Node,
    to: &Node,
    body: &'static str,
) -> impl Future<Output = Result<Bytes, CallError>> + use<> {
    from.transport.call(to.store, Lane::Data(0), Channel::Forward, body.into(), HANG)
}

#[test]
fn calls_are_answered_or_refused() {
    let nodes = met(&[1, 2]);
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&nodes[from], &nodes[to]);
        assert_eq!(run(call(from, to, "hello")), Ok("hello".into()));
        assert_eq!(
            run(call(from, to, "refuse")),
            Err(CallError::Refused(format!("not for {}", from.store.0)))
        );
        let over_control = from.transport.call(to.store, Lane::Control, Channel::Control, "c".into(), HANG);
        assert_eq!(run(over_control), Ok("c".into()));
    }
    let many: Vec<_> = (0..500).map(|_| call(&nodes[0], &nodes[1], "many")).collect();
    for one in many {
        assert_eq!(run(one), Ok("many".into()));
    }
}

#[test]
fn a_call_is_lost_when_the_connection_breaks_in_the_middle() {
    let nodes = met(&[1, 2]);
    let hanging = call(&nodes[0], &nodes[1], "hang");
    // Calls of one lane are taken in order: when this one is answered, the other one has arrived.
    assert_eq!(run(call(&nodes[0], &nodes[1], "behind it")), Ok("behind it".into()));
    nodes[1].transport.stop();
    assert!(matches!(run(hanging), Err(CallError::Lost(_))));
    nodes[0].sees(&Event::Reachable(StoreId(2), false));
    assert!(matches!(run(call(&nodes[0], &nodes[1], "down")), Err(CallError::NotSent(_))));
}

#[test]
fn a_call_that_arrived_and_has_no_answer_in_time_is_lost() {
    let nodes = met(&[1, 2]);
    let [short, long] = [Duration::ZERO, HANG].map(|deadline| {
        nodes[0].transport.call(StoreId(2), Lane::Data(0), Channel::Forward, "hang".into(), deadline)
    });
    assert_eq!(run(call(&nodes[0], &nodes[1], "behind them")), Ok("behind them".into()));
    assert_eq!(run(short), Err(CallError::Lost("the time was over".into())));
    drop(long);
    assert_eq!(run(call(&nodes[0], &nodes[1], "go on")), Ok("go on".into()));
}

#[test]
fn strangers_are_asked_by_their_address() {
    let (one, other) = (Node::start(1), Node::start(2));
    let ask =
        |body: &'static str| run(one.transport.ask(&other.address, Channel::Control, body.into(), HANG));
    assert_eq!(ask("who?"), Ok((identity(2), "n2 to n1: who?".into())));
    assert_eq!(ask("refuse"), Err(CallError::Refused("n2 to n1: refuse".into())));
    let myself = run(other.transport.ask(&other.address, Channel::Control, Bytes::new(), HANG));
    assert!(matches!(myself, Err(CallError::NotSent(reason)) if reason.contains("this node itself")));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let asked = one.transport.ask(&nobody, Channel::Control, Bytes::new(), HANG);
    assert!(matches!(run(asked), Err(CallError::NotSent(reason)) if reason.starts_with(&nobody)));
}

#[test]
fn a_stranger_who_says_nothing_was_asked_nothing() {
    let one = Node::start(1);
    // It takes the connection, and never answers the greeting.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let asked = one.transport.ask(&address, Channel::Control, Bytes::new(), Duration::from_millis(20));
    assert_eq!(run(asked), Err(CallError::NotSent("the time was over".into())));
}
