//! A simulated file's bytes: as the running system sees them, as the device has them, and what lies between.

use super::content::Content;
use super::dice::Dice;

/// A device writes such a piece whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A change that is not yet durable.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    current: Content,
    durable: Content,
    pending: Vec<Change>,
    /// Names that the running system sees.
    pub(super) links: u32,
}

impl Inode {
    /// A file that survived with these bytes.
    fn survived(content: Content) -> Inode {
        Inode { durable: content.clone(), current: content, pending: Vec::new(), links: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.current.read(buffer, offset)
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        self.current.write(bytes, offset);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.current.set_len(len);
        self.pending.push(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        self.sync_first(self.pending.len());
    }

    /// Changes that are not yet durable.
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Makes the oldest changes durable: those that were there when a sync began.
    pub(super) fn sync_first(&mut self, changes: usize) {
        for change in self.pending.drain(..changes.min(self.pending.len())) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that fails: some changes reach the device, and the system forgets that the others did not.
    pub(super) fn fail_sync(&mut self, dice: &mut Dice) {
        for change in std::mem::take(&mut self.pending) {
            if dice.coin() {
                change.apply(&mut self.durable);
            }
        }
    }

    /// Changes a byte on the device, unnoticed.
    pub(super) fn damage(&mut self, offset: usize, mask: u8) {
        self.current.flip(offset, mask);
        self.durable.flip(offset, mask);
    }

    /// What is left after power loss: what was synced, and any part of the rest.
    pub(super) fn after_power_loss(&self, dice: &mut Dice) -> Inode {
        let mut content = self.durable.clone();
        let style = dice.below(5);
        let kept = dice.index(self.pending.len() + 1);
        for (index, change) in self.pending.iter().enumerate() {
            match style {
                // Nothing, everything, a beginning with a torn last write, any writes, any sectors.
                0 => {}
                1 => change.apply(&mut content),
                2 if index < kept => change.apply(&mut content),
                2 if index == kept => change.tear(&mut content, dice),
                2 => {}
                3 if dice.coin() => change.apply(&mut content),
                3 => {}
                _ => change.tear(&mut content, dice),
            }
        }
        Inode::survived(content)
    }
}

impl Change {
    fn apply(&self, to: &mut Content) {
        match self {
            Change::Write { offset, bytes } => to.write(bytes, *offset),
            Change::Length(len) => to.set_len(*len),
        }
    }

    /// Any of the sectors, in any order.
    fn tear(&self, to: &mut Content, dice: &mut Dice) {
        match self {
            Change::Length(len) if dice.coin() => to.set_len(*len),
            Change::Length(_) => {}
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let piece = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len() - at);
                    if dice.coin() {
                        to.write(&bytes[at..at + piece], offset + at);
                    }
                    at += piece;
                }
            }
        }
    }
}
