//! What is left in memory of a value that is no longer needed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use keyward_core::secret::SecretBytes;

/// Large enough that the allocator's own notes in what was given back, which are at its ends, are not in the way.
const LENGTH: usize = 16 * 1024;

/// Read through the file that shows a process its own memory: once it is dropped, a buffer is no longer ours to look at.
#[test]
fn a_dropped_value_leaves_no_trace_in_its_place() {
    let memory = File::open("/proc/self/mem").unwrap();
    let value: Vec<u8> = (0..LENGTH)
        .map(|at| u8::try_from(at % 250 + 1).unwrap())
        .collect();
    let middle = LENGTH / 4..LENGTH / 2;
    let mut there = vec![0; middle.len()];
    // Nothing is allocated from here on: it could be put in the place that is looked at.
    let secret = SecretBytes::new(value);
    let place = secret.expose()[middle.clone()].as_ptr().addr() as u64;
    memory.read_exact_at(&mut there, place).unwrap();
    assert!(there == secret.expose()[middle], "this is the place");
    drop(secret);
    memory.read_exact_at(&mut there, place).unwrap();
    assert!(there.iter().all(|byte| *byte == 0), "the value is still there");
}
