//! Problems of files, equal causes once.

use std::path::Path;

/// A cause names this many of the items that have it.
const MAX_NAMED: usize = 10;
/// More causes in one folder are only counted.
const MAX_CAUSES: usize = 30;

/// Causes in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Cause>);

#[derive(Debug)]
struct Cause {
    file: String,
    /// What the items are, such as `project`; empty for the whole file.
    what: &'static str,
    problem: String,
    count: usize,
    named: Vec<String>,
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A problem of the whole file.
    pub(super) fn add_file(&mut self, file: &Path, problem: &str) {
        self.add(file, "", problem, String::new());
    }

    /// A problem of one item.
    pub(super) fn add(&mut self, file: &Path, what: &'static str, problem: &str, item: String) {
        let file = file.display().to_string();
        let known = self
            .0
            .iter_mut()
            .find(|known| known.problem == problem && known.what == what && known.file == file);
        match known {
            Some(cause) => {
                cause.count += 1;
                if cause.named.len() < MAX_NAMED {
                    cause.named.push(item);
                }
            }
            None => self.0.push(Cause {
                file,
                what,
                problem: problem.to_owned(),
                count: 1,
                named: vec![item],
            }),
        }
    }

    /// One line for each cause.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.0.iter().take(MAX_CAUSES).map(Cause::line).collect();
        if self.0.len() > MAX_CAUSES {
            lines.push(format!("and {} more causes", self.0.len() - MAX_CAUSES));
        }
        lines
    }
}

impl Cause {
    fn line(&self) -> String {
        let Self {
            file,
            what,
            problem,
            count,
            named,
        } = self;
        let names = named.join(", ");
        let plural = match *what {
            "entry" => "entries".to_owned(),
            what => format!("{what}s"),
        };
        match count - named.len() {
            _ if what.is_empty() => format!("{file}: {problem}"),
            0 if *count == 1 => format!("{file}, {what} {names}: {problem}"),
            0 => format!("{file}, {count} {plural}: {problem} ({names})"),
            more => format!("{file}, {count} {plural}: {problem} ({names} and {more} more)"),
        }
    }
}
