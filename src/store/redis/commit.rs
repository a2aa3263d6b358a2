//! The commit: one call of `commit.lua`, and what its reply means.

use redis::{Cmd, ErrorKind, ServerErrorKind, Value, cmd};

use super::{
    RedisStore,
    error::{is_distrust, is_reply, plain, refused, unread},
    reply::{array, text},
};
use crate::{
    domain::{Change, Operation, StoredEntry, Timestamp, text::truncate},
    store::{Commit, Purpose, StoreError},
};

/// The whole write, run by Redis.
pub(super) const SCRIPT: &str = include_str!("commit.lua");

impl RedisStore {
    fn commit_command(
        &self,
        name: &str,
        code: &str,
        changes: &[Change],
        rests: &[String],
        operation: &Operation,
    ) -> Cmd {
        let now = changes
            .first()
            .map_or(Timestamp::from_millis(0), Change::time);
        let texts = changes
            .iter()
            .map(|change| change.text().len() + change.expected_text().map_or(0, str::len))
            .sum::<usize>();
        let bytes = code.len()
            + texts
            + rests.iter().map(String::len).sum::<usize>()
            + 1024 * changes.len();
        let mut command = Cmd::with_capacity(7 + 17 * changes.len(), bytes);
        command.arg(name).arg(code).arg(4 + 7 * changes.len());
        command
            .arg(self.keys.mark(operation))
            .arg(self.keys.entries())
            .arg(self.keys.stats())
            .arg(self.keys.internal("self-test"));
        for change in changes {
            let key = change.key();
            command
                .arg(self.keys.document(key))
                .arg(self.keys.latest(key));
            for index in ["all", "published", "featured"] {
                command.arg(self.keys.index(index, key.kind));
            }
            command
                .arg(self.keys.cache(key.kind))
                .arg(self.keys.cache_of(key));
        }
        command
            .arg(operation.fingerprint())
            .arg(operation.seconds())
            .arg(now.millis())
            .arg(changes.len());
        for (change, rest) in changes.iter().zip(rests) {
            let entry = change.entry();
            command
                .arg(change.expected_text().unwrap_or_default())
                .arg(change.expected_entry_prefix().unwrap_or_default())
                .arg(change.text())
                .arg(&change.key().id)
                .arg(u8::from(change.next().is_published()))
                .arg(u8::from(change.next().is_featured()))
                .arg(entry.action.as_str())
                .arg(entry.entity_type.singular())
                .arg(entry.source.as_str())
                .arg(rest);
        }
        command
    }

    /// Sends the commit. The operation's mark makes every sending after the first harmless.
    pub(super) async fn send_commit(
        &self,
        changes: &[Change],
        rests: &[String],
        operation: &Operation,
    ) -> Result<Value, StoreError> {
        let line = self.writing()?;
        let by_hash =
            self.commit_command("EVALSHA", self.commit.get_hash(), changes, rests, operation);
        let mut result = line.send(&by_hash).await;
        // Not SCRIPT LOAD and again: behind a proxy of several servers the second may not know what the first loaded.
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        {
            let by_text = self.commit_command("EVAL", SCRIPT, changes, rests, operation);
            result = line.send(&by_text).await;
        }
        result.map_err(|error| match refused(&error) {
            // A connection that was not made has carried nothing; trouble with TLS other than distrust may come in the middle of one.
            refused @ StoreError::Refused(_) if !error.is_io_error() || is_distrust(&error) => {
                refused
            }
            refused if is_reply(&error) || error.is_connection_refusal() => refused,
            // Lost, late or garbled: it may have been applied all the same.
            _ => StoreError::OutcomeUnknown(plain(&error)),
        })
    }

    /// The entries of a commit of earlier, by their numbers.
    async fn entries_at(
        &self,
        score: i64,
        first: u64,
        count: u64,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let mut command = cmd("ZRANGE");
        command
            .arg(self.keys.entries())
            .arg(score)
            .arg(score)
            .arg("BYSCORE");
        let found = array(
            self.read(Purpose::Change, &command)
                .await
                .map_err(|error| unread(&error))?,
        );
        let entries: Vec<StoredEntry> = found
            .into_iter()
            .filter_map(|value| text(value).ok())
            .map(StoredEntry::parse)
            .filter(|entry| {
                entry
                    .seq()
                    .is_some_and(|seq| (first..first + count).contains(&seq))
            })
            .collect();
        Ok(entries)
    }

    pub(super) async fn replayed(
        &self,
        ms: &str,
        first: &str,
        count: &str,
    ) -> Result<Commit, StoreError> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                StoreError::Failed(format!(
                    "the operation's mark is damaged: `{}`",
                    truncate(text)
                ))
            })
        };
        let score = i64::try_from(number(ms)?).unwrap_or(i64::MAX);
        Ok(Commit {
            entries: self
                .entries_at(score, number(first)?, number(count)?)
                .await?,
            replayed: true,
        })
    }
}
