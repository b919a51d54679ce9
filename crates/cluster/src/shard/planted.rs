//! The rules of a member that can be switched off, to show that the simulation of whole members bites. Without the `planted` feature, which no
//! product build has, every rule holds and the question costs nothing.

/// A rule that a test can switch off. Each name says what the sound member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum MemberRule {
    /// What answers for a record goes out when the record is durable.
    AnswerAfterDurable,
    /// An adoption takes the values of cancelled items back, not only their names.
    RetractValues,
    /// An adoption stores the values of the basis with its items.
    AdoptValues,
    /// A member that is opened knows the items above its checkpoint by their notes.
    TailFromNotes,
    /// A member whose record the store refused stands still.
    HaltWhenRefused,
    /// The time that commands are evaluated at is not below that of any item.
    TimeNeverFalls,
    /// An answer that saw an item rests on it until it is committed.
    PendingUntilCommitted,
    /// Clients of a deposed leader hear what became of their items once that is known.
    DeposedClientsWait,
}

/// The rules switched off in a member under test.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemberPlanted(u32);

#[cfg(feature = "planted")]
impl MemberPlanted {
    /// With one rule switched off.
    #[must_use]
    pub const fn without(self, rule: MemberRule) -> MemberPlanted {
        MemberPlanted(self.0 | 1 << rule as u32)
    }

    /// Whether the rule holds.
    #[must_use]
    pub const fn holds(self, rule: MemberRule) -> bool {
        self.0 & (1 << rule as u32) == 0
    }
}
