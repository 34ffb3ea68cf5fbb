//! The `rig` command: real servers for the suites, started by hand.

fn main() {
    keyward_tests::rig::keeper::serve_if_asked();
}
