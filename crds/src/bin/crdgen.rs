//! Writes the definitions of the kinds: `crdgen charts/dapr/crds`.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os()
        .nth(1)
        .context("give the folder to write to")?
        .into();
    for definition in outrider_crds::schema::definitions() {
        let path = folder.join(definition.file);
        let text = serde_saphyr::to_string(&definition.object)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
