//! Integration tests of the program and of the workspace as a whole.

mod tidy;
