//! What an import tells: what is notable, equal things once, and one summary.

use std::io::{self, Write};

use crate::{
    domain::{
        Change, DocumentKey, Kind, Record, Violation,
        text::{sanitize, truncate},
    },
    folder::{Folder, Misshapen},
    style::{BAD, GOOD, WARNING, paint},
};

/// More lines of a sort are only counted.
const MAX_LINES: usize = 12;
/// A line names this many documents.
const MAX_NAMED: usize = 5;

/// What to do with a document that exists with different content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDifference {
    Skip,
    Replace,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    DryRun,
    Write,
}

/// What was done, or in a dry run would be done.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) created: Vec<DocumentKey>,
    /// With the fields in which they differed.
    replaced: Vec<(DocumentKey, String)>,
    unchanged: usize,
    /// Skipped because they differ, with the fields.
    differing: Vec<(DocumentKey, String)>,
    /// Skipped because what is stored cannot be read.
    unreadable: Vec<(DocumentKey, String)>,
    broken_rules: Vec<BrokenRule>,
}

/// A rule that documents break at one path.
#[derive(Debug)]
struct BrokenRule {
    kind: Kind,
    violation: Violation,
    count: usize,
    named: Vec<DocumentKey>,
}

impl Report {
    /// Records what becomes of a document, and returns the change unless it is skipped.
    pub(super) fn record(
        &mut self,
        key: &DocumentKey,
        change: Option<Change>,
        on_difference: OnDifference,
    ) -> Option<Change> {
        let Some(change) = change else {
            self.unchanged += 1;
            return None;
        };
        let changes = change.entry().changes.iter();
        let fields: Vec<_> = changes.map(|change| truncate(&change.field)).collect();
        let fields = fields.join(", ");
        match (change.expected_text(), on_difference) {
            (None, _) => self.created.push(key.clone()),
            (Some(_), OnDifference::Replace) => self.replaced.push((key.clone(), fields)),
            (Some(_), OnDifference::Skip) => {
                self.differing.push((key.clone(), fields));
                return None;
            }
        }
        let next = change.next();
        for violation in next.map(Record::violations).unwrap_or_default() {
            self.add_violation(BrokenRule {
                kind: key.kind,
                violation: violation.clone(),
                count: 1,
                named: vec![key.clone()],
            });
        }
        Some(change)
    }

    /// Records a document that cannot be compared with what is stored.
    pub(super) fn record_unreadable(&mut self, key: &DocumentKey, problem: String) {
        self.unreadable.push((key.clone(), problem));
    }

    fn add_violation(&mut self, rule: BrokenRule) {
        let known = self.broken_rules.iter_mut().find(|known| {
            known.kind == rule.kind
                && known.violation.rule == rule.violation.rule
                && without_indexes(&known.violation.path) == without_indexes(&rule.violation.path)
        });
        let Some(known) = known else {
            self.broken_rules.push(rule);
            return;
        };
        for key in rule.named {
            // A document may break a rule in several places.
            if known.named.last() != Some(&key) {
                known.count += 1;
                known.named.push(key);
            }
        }
    }

    pub(super) fn add(&mut self, part: Self) {
        self.created.extend(part.created);
        self.replaced.extend(part.replaced);
        self.unchanged += part.unchanged;
        self.differing.extend(part.differing);
        self.unreadable.extend(part.unreadable);
        for rule in part.broken_rules {
            self.add_violation(rule);
        }
    }

    /// How many documents were written.
    pub(super) fn written(&self) -> usize {
        self.created.len() + self.replaced.len()
    }

    /// Whether there are documents that `--force` would overwrite.
    pub(super) fn has_differing(&self) -> bool {
        !self.differing.is_empty()
    }

    pub(super) fn skipped(&self) -> usize {
        self.differing.len() + self.unreadable.len()
    }

    pub(super) fn write(
        &self,
        out: &mut impl Write,
        folder: &Folder,
        mode: Mode,
    ) -> io::Result<()> {
        let mut lines = Vec::new();
        // What was created is what was asked for; the summary counts it.
        if mode == Mode::DryRun {
            let created = self
                .created
                .iter()
                .map(|key| format!("{} {key}", paint(GOOD, "would create")));
            limit(created.collect(), &mut lines);
        }
        let verb = match mode {
            Mode::Write => "replaced  ",
            Mode::DryRun => "would replace",
        };
        let replaced = self
            .replaced
            .iter()
            .map(|(key, fields)| format!("{} {key}: {}", paint(WARNING, verb), sanitize(fields)));
        limit(replaced.collect(), &mut lines);
        let skipped = self.differing.iter().map(|(key, fields)| {
            format!(
                "{} {key}: differs in {}",
                paint(WARNING, "skipped   "),
                sanitize(fields)
            )
        });
        limit_but_name(skipped.collect(), &self.differing, &mut lines);
        let unreadable = self.unreadable.iter().map(|(key, problem)| {
            format!("{} {key}: {}", paint(BAD, "error     "), sanitize(problem))
        });
        limit(unreadable.collect(), &mut lines);
        limit(self.warnings(folder), &mut lines);
        for line in lines {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", self.summary(mode))
    }

    fn warnings(&self, folder: &Folder) -> Vec<String> {
        let remarks = folder
            .remarks
            .iter()
            .map(|remark| sanitize(remark).into_owned());
        let shapes = folder.misshapen.iter().map(Misshapen::summary);
        let named = |rule: &&BrokenRule| !is_in_shape_summary(rule, &folder.misshapen);
        let rules = self.broken_rules.iter().filter(named).map(BrokenRule::line);
        let warning = paint(WARNING, "warning   ");
        let lines = shapes.chain(remarks).chain(rules);
        lines.map(|line| format!("{warning} {line}")).collect()
    }

    fn summary(&self, mode: Mode) -> String {
        let (created, replaced) = (self.created.len(), self.replaced.len());
        let (unchanged, skipped) = (self.unchanged, self.skipped());
        match mode {
            Mode::Write => format!(
                "{created} created, {replaced} replaced, {unchanged} unchanged, {skipped} skipped"
            ),
            Mode::DryRun => format!(
                "dry run, nothing was written: {created} to create, {replaced} to replace, {unchanged} unchanged, {skipped} to skip"
            ),
        }
    }
}

impl BrokenRule {
    fn line(&self) -> String {
        let violation = sanitize(&self.violation.to_string()).into_owned();
        if let ([key], 1) = (self.named.as_slice(), self.count) {
            return format!("{key}: {violation}");
        }
        let named = self.named.iter().take(MAX_NAMED);
        let ids: Vec<String> = named
            .map(|key| format!("`{}`", truncate(&key.id)))
            .collect();
        let more = match self.count - ids.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let plural = self.kind.plural();
        format!(
            "{} {plural}: {violation} ({}{more})",
            self.count,
            ids.join(", ")
        )
    }
}

/// Whether the summary of the documents' shape says it of all of them.
fn is_in_shape_summary(rule: &BrokenRule, misshapen: &[Misshapen]) -> bool {
    let says = |shape: &Misshapen| {
        shape.kind == rule.kind
            && shape.count >= rule.count
            && shape.missing.contains(&rule.violation.path)
    };
    rule.violation.rule == "required" && misshapen.iter().any(says)
}

fn without_indexes(path: &str) -> String {
    path.split(|c: char| matches!(c, '[' | ']') || c.is_ascii_digit())
        .collect()
}

/// The first lines, and how many more there are.
fn limit(found: Vec<String>, lines: &mut Vec<String>) {
    let more = found.len().saturating_sub(MAX_LINES);
    lines.extend(found.into_iter().take(MAX_LINES));
    if more > 0 {
        lines.push(format!("           and {more} more"));
    }
}

/// The same for documents of which each has to be named.
fn limit_but_name(
    found: Vec<String>,
    documents: &[(DocumentKey, String)],
    lines: &mut Vec<String>,
) {
    let rest = documents.get(MAX_LINES..).unwrap_or_default();
    lines.extend(found.into_iter().take(MAX_LINES));
    if !rest.is_empty() {
        let keys: Vec<String> = rest.iter().map(|(key, _)| key.to_string()).collect();
        lines.push(format!(
            "           and {} more: {}",
            rest.len(),
            keys.join(", ")
        ));
    }
}
