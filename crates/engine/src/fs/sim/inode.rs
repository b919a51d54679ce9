//! A simulated file's bytes: as the running system sees them, as the device has them, and what lies between.

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
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Names that the running system sees.
    pub(super) links: u32,
}

impl Inode {
    /// A file that survived with these bytes.
    fn survived(bytes: Vec<u8>) -> Inode {
        Inode { durable: bytes.clone(), current: bytes, pending: Vec::new(), links: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.current.len());
        let there = &self.current[start..];
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        apply_write(&mut self.current, bytes, offset);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.current.resize(len, 0);
        self.pending.push(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
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
        for bytes in [&mut self.current, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// What is left after power loss: what was synced, and any part of the rest.
    pub(super) fn after_power_loss(&self, dice: &mut Dice) -> Inode {
        let mut bytes = self.durable.clone();
        let style = dice.below(5);
        let kept = dice.index(self.pending.len() + 1);
        for (index, change) in self.pending.iter().enumerate() {
            match style {
                // Nothing, everything, a beginning with a torn last write, any writes, any sectors.
                0 => {}
                1 => change.apply(&mut bytes),
                2 if index < kept => change.apply(&mut bytes),
                2 if index == kept => change.tear(&mut bytes, dice),
                2 => {}
                3 if dice.coin() => change.apply(&mut bytes),
                3 => {}
                _ => change.tear(&mut bytes, dice),
            }
        }
        Inode::survived(bytes)
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => apply_write(to, bytes, *offset),
            Change::Length(len) => to.resize(*len, 0),
        }
    }

    /// Any of the sectors, in any order.
    fn tear(&self, to: &mut Vec<u8>, dice: &mut Dice) {
        match self {
            Change::Length(len) if dice.coin() => to.resize(*len, 0),
            Change::Length(_) => {}
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let piece = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len() - at);
                    if dice.coin() {
                        apply_write(to, &bytes[at..at + piece], offset + at);
                    }
                    at += piece;
                }
            }
        }
    }
}

fn apply_write(to: &mut Vec<u8>, bytes: &[u8], offset: usize) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}
