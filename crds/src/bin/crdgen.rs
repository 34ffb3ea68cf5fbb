//! Writes the generated definitions to `crds/manifests/`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    std::fs::create_dir_all(&folder)?;
    for (file, definition) in keyward_crds::definitions() {
        std::fs::write(folder.join(file), keyward_crds::manifest(&definition)?)?;
    }
    Ok(())
}
