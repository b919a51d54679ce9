//! The protocol as an abstract model of messages, searched exhaustively.
//!
//! Three members, a network that loses, duplicates and reorders (a sent message stays deliverable; one that is never delivered is
//! lost), crashes that keep durable state alone, managers that restart, disks that are wiped. Bounds: a few reigns, a few writes in
//! each. Every rule of the protocol is a switch in [`rules::Rules`]: with all of them on the search must end without a violation, with
//! any one off it must find one. The published outline of the algorithm is a setting of the same switches.
//!
//! A member's disk holds, as in the product, a *tree* (values by op id), a *checkpoint* and a *tail* (items above the checkpoint).

mod exhaustive;
mod outline;
mod properties;
mod reign;
mod rules;
mod search;
mod state;
mod step;
mod switched_off;
mod write;
