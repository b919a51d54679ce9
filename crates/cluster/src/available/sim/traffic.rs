//! Questions and answers under way: they are lost, come late and in any order.

use super::mending::Mending;
use super::world::{AHEAD_MS, NAMESPACE, World};
use super::*;

/// How often a replica is asked again that is being rebuilt, or knows other nodes.
const TRIES: u8 = 4;

/// Who waits for an answer.
#[derive(Clone)]
pub(super) enum Waiter {
    Client(u64),
    Mending(Mending),
    Hint(Box<Hint>),
    /// Since when the node that asks has been awake.
    Heard(u64),
    Nobody,
}

#[derive(Clone)]
pub(super) struct Call {
    pub(super) by: usize,
    pub(super) boot: u64,
    /// The map by which it is asked.
    pub(super) map: usize,
    pub(super) to: StoreId,
    pub(super) waiter: Waiter,
    pub(super) tries: u8,
}

pub(super) enum UnderWay {
    Ask(Call, Ask),
    Answer(Call, Ask, Option<Answer>),
}

impl World {
    /// Something arrives, in any order.
    pub(super) fn pass_on(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.dice.index(self.under_way.len());
        match self.under_way.swap_remove(index) {
            UnderWay::Ask(call, ask) => {
                let answer = self.answer(&call, &ask);
                self.under_way.push(UnderWay::Answer(call, ask, answer));
            }
            UnderWay::Answer(call, ask, answer) => self.hear(call, ask, answer),
        }
    }

    pub(super) fn drain(&mut self) {
        while !self.under_way.is_empty() {
            self.pass_on();
        }
    }

    /// `None` if the question does not arrive, or is refused.
    fn answer(&mut self, call: &Call, ask: &Ask) -> Option<Answer> {
        let at = self.at(call.to)?;
        let asker = &self.nodes[call.by];
        if self.is_cut(call.by, at) || asker.boot != call.boot || asker.up.is_none() {
            return None;
        }
        if self.nodes[at].is_paused || self.nodes[at].up.is_none() {
            return None;
        }
        self.pulse(at);
        self.meet(at, call.by);
        // As it would come over the wire.
        let asked = self.maps[call.map].order.print();
        let head = Head { namespace: NAMESPACE, nodes: asked, durability: None };
        let (head, ask) = decode_ask(encode_ask(&head, ask)).expect("an ask");
        if head.nodes != self.map_of(at).order.print() && !is_planted(Fault::MapsMix) {
            return Some(Answer::OtherNodes);
        }
        if let Ask::Awake { now_ms, seen_ms } = ask {
            let answer = self.is_told(at, self.nodes[call.by].store_id, now_ms, seen_ms);
            return decode_answer(encode_answer(&answer));
        }
        let answer = match self.handle(at, self.nodes[call.by].store_id, &ask) {
            Err(Refusal::OtherNodes) => {
                self.turn(at, false);
                self.handle(at, self.nodes[call.by].store_id, &ask)
            }
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Refusal::Rebuilding) => Answer::Rebuilding,
            Err(Refusal::OtherNodes) => Answer::OtherNodes,
            Err(Refusal::Ahead { .. }) => Answer::Ahead,
            Err(_) => return None,
        };
        decode_answer(encode_answer(&answer))
    }

    fn handle(&mut self, at: usize, asker: StoreId, ask: &Ask) -> Result<Answer, Refusal> {
        let (wall, map) = (self.wall_ms(at), self.nodes[at].map);
        let order = &self.maps[map].order;
        let up = self.nodes[at].up.as_mut().expect("it is up");
        let ceiling = up.hybrid.floor(up.hybrid.now_ms(wall) + AHEAD_MS);
        let (answer, sequence) = up.replica.handle(asker, ask, order, ceiling)?;
        if let Ask::Write { entry, .. } = ask {
            up.hybrid.observe(entry.version);
        }
        up.store.commit_at(sequence, Durability::Synced).wait().expect("a sync");
        Ok(answer)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to)) || self.apart.contains(&from) != self.apart.contains(&to)
    }

    /// A node has heard of another one.
    fn meet(&mut self, at: usize, other: usize) {
        let wall = self.wall_ms(at);
        if let Some(up) = self.nodes[at].up.as_mut().filter(|_| at != other) {
            up.met_ms = up.hybrid.now_ms(wall);
        }
    }

    fn is_told(&mut self, at: usize, from: StoreId, now_ms: u64, seen_ms: u64) -> Answer {
        let (own, others) = (self.own_time(at).expect("it is up"), self.others(at));
        let heard = &mut self.nodes[at].up.as_mut().expect("it is up").heard;
        heard.told(NAMESPACE, from, Told { now_ms, seen_ms, after_ms: own.awake_for_ms });
        let silent = heard.silent(NAMESPACE, &others, own);
        Answer::Heard { now_ms: own.now_ms, is_unused: false, silent }
    }

    fn hear(&mut self, mut call: Call, ask: Ask, answer: Option<Answer>) {
        let asker = &self.nodes[call.by];
        if asker.boot != call.boot || asker.up.is_none() {
            if let Waiter::Client(number) = call.waiter {
                // The coordinator is gone, and its client with it.
                self.clients.remove(&number);
            }
            return;
        }
        self.pulse(call.by);
        let at = self.at(call.to);
        let answer = answer.filter(|_| at.is_some_and(|at| !self.is_cut(at, call.by)));
        if let Some(at) = at.filter(|_| answer.is_some()) {
            self.meet(call.by, at);
        }
        let is_early = match &answer {
            Some(Answer::OtherNodes) => call.map == self.nodes[call.by].map,
            Some(Answer::Rebuilding) => matches!(call.waiter, Waiter::Client(_)),
            _ => false,
        };
        if is_early && call.tries < TRIES {
            call.tries += 1;
            return self.under_way.push(UnderWay::Ask(call, ask));
        }
        let answer = answer.filter(|answer| !matches!(answer, Answer::OtherNodes | Answer::Rebuilding));
        self.take(call, answer);
    }

    fn take(&mut self, call: Call, answer: Option<Answer>) {
        self.observe(&call, answer.as_ref());
        match (call.waiter, answer) {
            // Of an attempt among other nodes nothing counts any more.
            (Waiter::Client(number), answer)
                if self.clients.get(&number).is_some_and(|client| client.map == call.map) =>
            {
                let failed = Input::Failed(call.to);
                self.tell(number, answer.map_or(failed, |answer| Input::Answered(call.to, answer)));
            }
            (Waiter::Mending(mending), answer) => self.go_on(call.by, call.boot, mending, answer),
            (Waiter::Hint(hint), Some(Answer::Stored { .. })) => {
                let up = self.nodes[call.by].up.as_mut().expect("it is up");
                up.hints.delivered(&hint).expect("a hint goes");
                self.delivered += 1;
            }
            (Waiter::Heard(asked_ms), Some(Answer::Heard { now_ms, silent, .. })) => {
                if let Some(up) = &mut self.nodes[call.by].up {
                    up.touch.answered(call.to, asked_ms, now_ms);
                    up.missed.insert(call.to, (asked_ms, silent));
                }
            }
            _ => {}
        }
    }

    /// What a node gives next is above all that it has seen.
    fn observe(&mut self, call: &Call, answer: Option<&Answer>) {
        let version = match answer {
            Some(Answer::Stored { newer, .. }) => *newer,
            Some(Answer::Found(Some(entry))) => entry.version,
            _ => return,
        };
        let wall = self.wall_ms(call.by);
        let Some(up) = &mut self.nodes[call.by].up else { return };
        if version <= up.hybrid.floor(up.hybrid.now_ms(wall) + AHEAD_MS) {
            up.hybrid.observe(version);
        }
    }
}
