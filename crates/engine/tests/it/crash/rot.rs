//! Bits that flip while the machine is off.

use super::world::World;
use kvorum_engine::fs::sim::Dice;
use kvorum_engine::{Error, Store};
use std::path::PathBuf;

/// Steps of a life on a damaged device.
const STEPS: u64 = 12;
/// Places that are looked at for one where something stands.
const TRIES: u64 = 20;

impl World {
    /// A life on a copy of the device with one flipped bit: what the store answers is right, or an error. The device itself stays as it is.
    ///
    /// One exception, of `docs/formats/log.md`: what no later group of the log vouches for may be taken for its torn end.
    pub(super) fn live_on_damage(&mut self) {
        let mut dice = Dice::new(self.dice.next_u64());
        let fs = self.fs.copy();
        let Some((path, at)) = place(&self.fs.copy(), &mut dice) else { return };
        self.tell(|| format!("on a copy a bit of {} flips at {at}", path.display()));
        fs.damage(&path, at, 1 << dice.below(8)).expect("it is there");
        let mut world = World {
            dice,
            fs,
            settings: self.settings.clone(),
            model: self.model.clone(),
            lies: true,
            ..*self
        };
        if path.extension().is_some_and(|extension| extension == "wal") {
            world.written = world.written.min(self.vouched);
        }
        // What is found damaged stays it; what is not must stay right through the next opening.
        for _ in 0..2 {
            match world.open() {
                Ok(store) => world.take_steps(&store),
                Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) => return,
                Err(error) => panic!("neither right nor damage: {error}"),
            }
            world.fs = world.fs.after_kill();
        }
    }

    fn take_steps(&mut self, store: &Store) {
        for _ in 0..self.dice.below(STEPS) {
            let result = self.step(store);
            self.judge(store, result);
        }
        self.check(store);
    }
}

/// A byte of any file, where something stands if possible.
fn place(fs: &kvorum_engine::fs::sim::SimFs, dice: &mut Dice) -> Option<(PathBuf, u64)> {
    let mut files = fs.files();
    files.retain(|(_, len)| *len > 0);
    let (path, len) = files.get(dice.index(files.len()))?.clone();
    let bytes = fs.bytes(&path)?;
    let mut at = 0;
    for _ in 0..TRIES {
        at = dice.below(len);
        if bytes.get(usize::try_from(at).ok()?).is_some_and(|&byte| byte != 0) {
            break;
        }
    }
    Some((path, at))
}
