//! What a command is evaluated with.

use crate::args::Args;
use crate::effects::{Effect, Effects, Value};
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;
use crate::spec::DataFn;
use crate::view::{Label, Meta, Record, TAG_STRING, View};
use bytes::Bytes;

/// A view, a time, and a place for effects: all that a data command knows of the world.
pub struct Context<'a, 'r> {
    view: &'a dyn View,
    now_ms: u64,
    effects: &'a mut Effects<'r>,
}

/// Evaluates a data command whose arity [`resolve`](crate::resolve) has checked. `now_ms` is the shard's time in Unix milliseconds.
///
/// `effects` is cleared first and holds the command's effects afterwards; none when the reply or the stop is an error. Evaluated twice on the
/// same view at the same time, a command gives the same reply and the same effects.
pub fn evaluate<'r>(
    run: DataFn,
    args: Args<'r>,
    view: &dyn View,
    now_ms: u64,
    effects: &mut Effects<'r>,
) -> Result<Reply, Stop> {
    effects.clear();
    let outcome = run(&mut Context { view, now_ms, effects }, args);
    if !matches!(&outcome, Ok(reply) if !reply.is_error()) {
        effects.clear();
    }
    outcome
}

impl<'r> Context<'_, 'r> {
    /// The shard's time, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Whether something with this expiry has ceased to exist.
    pub(crate) fn is_past(&self, expires_at: Option<u64>) -> bool {
        expires_at.is_some_and(|at| at <= self.now_ms)
    }

    /// The key's record of whatever type; expired ones are absent.
    pub(crate) fn record(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let found = self.view.get(key)?;
        Ok(found.filter(|record| !self.is_past(record.expires_at)))
    }

    /// As [`record`](Context::record), without the value.
    pub(crate) fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let found = self.view.meta(key)?;
        Ok(found.filter(|meta| !self.is_past(meta.expires_at)))
    }

    /// The key's record, which must be a string.
    pub(crate) fn string(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        match self.record(key)? {
            Some(record) if record.tag != TAG_STRING => Err(ErrorReply::wrong_type().into()),
            found => Ok(found),
        }
    }

    /// The version this command's write of `key` gets.
    pub(crate) fn next_version(&self, key: &[u8]) -> u64 {
        self.view.next_version(key)
    }

    /// Whether a write of the key is in flight.
    pub(crate) fn label(&self, key: &[u8]) -> Label {
        self.view.label(key)
    }

    /// Whether this command has changed `key` already.
    pub(crate) fn has_changed(&self, key: &[u8]) -> bool {
        self.effects.contains(key)
    }

    /// Gives `key` a string as the client sent it. An expiry that has passed deletes, as in Redis.
    pub(crate) fn put(&mut self, key: &'r [u8], value: &'r [u8], expires_at: Option<u64>) {
        self.put_value(key, Value::Borrowed(value), expires_at, TAG_STRING);
    }

    /// Gives `key` a string that the command made.
    pub(crate) fn put_owned(&mut self, key: &'r [u8], value: Bytes, expires_at: Option<u64>) {
        self.put_value(key, Value::Owned(value), expires_at, TAG_STRING);
    }

    /// Gives `key` a value of any type.
    pub(crate) fn put_value(&mut self, key: &'r [u8], value: Value<'r>, expires_at: Option<u64>, tag: u8) {
        if self.is_past(expires_at) {
            return self.delete(key);
        }
        self.effects.push(Effect::Put { key, value, expires_at, tag });
    }

    /// Gives an existing `key` another expiry; its value is written again, at the new version.
    pub(crate) fn keep_value(&mut self, key: &'r [u8], expires_at: Option<u64>) -> Result<(), Stop> {
        if let Some(record) = self.record(key)? {
            self.put_value(key, Value::Owned(record.value), expires_at, record.tag);
        }
        Ok(())
    }

    /// Ends the key's existence.
    pub(crate) fn delete(&mut self, key: &'r [u8]) {
        self.effects.push(Effect::Delete { key });
    }
}
