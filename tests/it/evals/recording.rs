//! What models did in a run, as it is kept in `tests/evals/recordings`.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::task::{Turn, evals_path};

/// A run of all tasks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    pub(crate) solved: usize,
    pub(crate) calls: usize,
    pub(crate) tokens: usize,
    pub(crate) tasks: Vec<RecordedTask>,
}

/// One task of a run.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedTask {
    pub(crate) id: String,
    /// Of the tools and instructions that the model saw.
    pub(crate) hash: String,
    /// Why the task was not solved; empty if it was.
    pub(crate) problems: Vec<String>,
    pub(crate) turns: Vec<Turn>,
}

impl Recording {
    /// Every recording with its name.
    pub(crate) fn all() -> Vec<(String, Self)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(evals_path("recordings")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let recording = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push((name, recording));
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// Writes it with one task a line.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let tasks: Vec<String> = self
            .tasks
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        let text = format!(
            "{{\"solved\":{},\"calls\":{},\"tokens\":{},\"tasks\":[\n{}\n]}}\n",
            self.solved,
            self.calls,
            self.tokens,
            tasks.join(",\n")
        );
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, text)
    }
}
