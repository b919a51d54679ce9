//! The control plane: who belongs to the cluster, who keeps what, who leads. See `docs/decisions/040-control-plane.md`.

mod apply;
mod change;
mod map;
mod placement;
mod report;
