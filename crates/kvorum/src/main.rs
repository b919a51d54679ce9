//! The `kvorum` program.
#![forbid(unsafe_code)]

fn main() {
    println!("kvorum {}", env!("CARGO_PKG_VERSION"));
}
