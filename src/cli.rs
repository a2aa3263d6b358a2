//! The command line: clap structs and help texts, nothing else.
//!
//! What a flag means together with its environment variable and its default is decided in
//! `settings.rs`, which also adds both to the help.

use std::{fmt, path::PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "portfolio-mcp",
    version,
    about,
    long_about = None,
    after_help = "Without a command, runs `stdio` if standard input is not a terminal; otherwise prints this help.",
    max_term_width = 100
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of every command.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one MCP client over standard input and output, which is how desktop clients and
    /// editors start a server
    Stdio,
    /// Serve MCP clients over HTTP: Streamable HTTP at /mcp, HTTP+SSE at /sse, and the website's
    /// API at /api
    Http(HttpArgs),
    /// Import documents and audit entries from a folder: projects.json, resources.json, audit.jsonl
    /// or audit.json
    ///
    /// Documents are stored exactly as they are in the files. Documents that already exist with
    /// different content are skipped and listed. --force overwrites them. Importing the same folder
    /// again changes nothing.
    ///
    /// Exit codes: 0 everything is imported, 1 a file has errors or a document was skipped, 3 the
    /// store failed, 130 interrupted by Ctrl-C.
    Import(ImportArgs),
    /// Undo changes: those with these audit ids, or all since a time that match
    ///
    /// Shows what would change, then asks. Each field gets the value it would have if the changes had
    /// never been made. A field that was changed later by something else stays, and is listed. An
    /// undo is a change too, so it can be undone.
    ///
    /// Examples: `portfolio-mcp undo 4f9c2d1e-…`, `portfolio-mcp undo --client claude-code --since
    /// 2026-11-22T10:00:00Z`
    ///
    /// Exit codes: 0 done, or nothing was left to undo, 1 the changes cannot be undone, or the answer
    /// was no, 2 nobody could be asked, 3 the store failed, 130 interrupted by Ctrl-C.
    Undo(UndoArgs),
    /// Show a plan that a dry run made, or apply it
    ///
    /// A client that makes a dry run gets the id of a plan, which lasts 24 hours. `apply` makes exactly
    /// the change that was shown, unless a document was changed since then.
    ///
    /// Examples: `portfolio-mcp plan show 9f86d081884c7d65…`, `portfolio-mcp plan apply
    /// 9f86d081884c7d65…`
    ///
    /// Exit codes: 0 done, 1 the plan cannot be applied, or the answer was no, 2 nobody could be
    /// asked, 3 the store failed, 130 interrupted by Ctrl-C.
    Plan(PlanArgs),
    /// Print a document as JSON, as it is or as it was
    ///
    /// What it was is computed from the audit log.
    ///
    /// Examples: `portfolio-mcp show project rdv-artisan`, `portfolio-mcp show project rdv-artisan
    /// --as-of 2026-11-22T10:00:00Z`
    ///
    /// Exit codes: 0 done, 1 there is or was no such document, the log does not say what it was, or
    /// there is no such time or audit id, 3 the store failed, 130 interrupted by Ctrl-C.
    Show(ShowArgs),
    /// Show what differs in the content between two points in time
    ///
    /// Each of them is a time in RFC 3339, or the audit id of a change.
    ///
    /// Examples: `portfolio-mcp diff 2026-11-22T10:00:00Z`, `portfolio-mcp diff 4f9c2d1e-… 5a0d…`
    ///
    /// Exit codes: 0 done, 1 there is no such time or audit id, or it is too long ago, 3 the store
    /// failed, 130 interrupted by Ctrl-C.
    Diff(DiffArgs),
    /// Check the configuration and the store, and say how to fix what is wrong
    ///
    /// Changes no content. Takes the options of `http` in order to check them too.
    ///
    /// Exit codes: 0 the server would start and work, 1 the configuration or the content has
    /// problems, 3 the store has problems, 130 interrupted by Ctrl-C.
    Doctor(DoctorArgs),
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Where the content is stored: `redis://…`, `rediss://…` (Redis with TLS) or `sqlite:PATH`
    ///
    /// Without it, the first of these variables that is set gives the address of a Redis database:
    /// `REDIS_URL`, `REDIS_REDIS_URL`, `REDIS_KV_URL`, `KV_URL`, or the variables of an Upstash
    /// database (`REDIS_KV_REST_API_…`, `KV_REST_API_…`, `UPSTASH_REDIS_REST_…`).
    ///
    /// Example: `--store sqlite:content.db`
    #[arg(long, value_name = "URL", global = true)]
    pub store: Option<Secret>,
    /// Read that URL from the first line of this file, so that no client configuration holds a password
    ///
    /// Refused if other users may write the file.
    ///
    /// Example: `--store-file ~/.config/portfolio-mcp/store`
    #[arg(long, value_name = "FILE", global = true)]
    pub store_file: Option<String>,
    /// Put PREFIX before every Redis key, so that several sites can share a database. Example:
    /// `site:`
    #[arg(long, value_name = "PREFIX", global = true)]
    pub key_prefix: Option<String>,
    /// Trust the certificate authority in this PEM file for `rediss://…`, instead of the public
    /// ones
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_file: Option<String>,
    /// Offer the tools of these toolsets, separated by commas: content, history, authoring, batch; or
    /// all
    ///
    /// `content` reads and edits documents and reads the log; `history` shows the past and undoes
    /// changes; `authoring` creates and deletes documents; `batch` edits many at once.
    ///
    /// Example: `--toolsets content,history`
    #[arg(long, value_name = "LIST", global = true)]
    pub toolsets: Option<String>,
    /// Offer only the tools that read content
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        global = true
    )]
    pub read_only: Option<String>,
    /// Refuse updates that do not say which version of the document they change
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        global = true
    )]
    pub require_version: Option<String>,
    /// The address of a document on the website, for answers about published documents: `{id}` stands
    /// for its id, `{kind}` for `projects` or `resources`
    ///
    /// Example: `--site-url https://example.com/{kind}/{id}`
    #[arg(long, value_name = "URL", global = true)]
    pub site_url: Option<String>,
    /// Log messages of this level and above to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,
    /// Format of the log: text, or json for one JSON object per line
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

/// Text that may contain a password; `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(pub String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Options of `http`, which `doctor` takes too.
#[derive(Debug, Args)]
#[command(next_help_heading = "HTTP options")]
pub struct HttpArgs {
    /// Listen on this address and port. Port 0 picks a free port; the addresses are printed on stderr
    ///
    /// Example: `--listen 127.0.0.1:8787`
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Accept requests for this host name, in addition to localhost. May be repeated
    ///
    /// Separate several hosts by commas in the variable.
    ///
    /// Examples: `--allowed-host cms.example.com` (on any port), `--allowed-host
    /// cms.example.com:8443`
    #[arg(long = "allowed-host", value_name = "HOST", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,
    /// Allow browser requests from this origin, in addition to localhost. May be repeated
    ///
    /// Separate several origins by commas in the variable.
    ///
    /// Example: `--allowed-origin https://example.com`
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
    /// The path under which a proxy serves this server, so that clients of /sse post their messages
    /// there
    ///
    /// Without it, the header `X-Forwarded-Prefix` of the request is used, which many proxies set.
    ///
    /// Example: `--public-path /cms` (the proxy serves this server's /sse at /cms/sse)
    #[arg(long, value_name = "PATH")]
    pub public_path: Option<String>,
    /// Require a bearer token from this file. Required when listening on a non-loopback address
    ///
    /// One token per line: `name:role:token`. The role is `write` or `read`; the audit log records
    /// the name. The file is read again on SIGHUP. `PORTFOLIO_TOKENS` contains such lines instead
    /// of a file name; it is ignored if a file is given.
    // An empty name would otherwise mean the default, which is to require no token.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    pub token_file: Option<String>,
    /// Serve published documents at /api without a token
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true
    )]
    pub public_api: Option<String>,
    /// Requests per second allowed for each client, with bursts of four times that. 0 turns the
    /// limit off
    #[arg(long, value_name = "N")]
    pub rate_limit: Option<String>,
}

/// Options of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Folder with the JSON files
    pub folder: PathBuf,
    /// Show what would be imported, without writing anything
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrite documents that exist with different content; the audit log keeps the replaced
    /// values
    #[arg(long)]
    pub force: bool,
}

/// Options of `undo`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("changes").args(["audit_ids", "since"]))]
pub struct UndoArgs {
    /// Undo the changes with these audit ids, which the audit log shows. Undoing the creation of a
    /// document deletes it
    #[arg(value_name = "ID")]
    pub audit_ids: Vec<String>,
    /// Undo all changes from this time on, in RFC 3339, but for what commands such as `import` wrote
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Undo only changes before this time
    #[arg(long, value_name = "TIME", requires = "since")]
    pub until: Option<String>,
    /// Undo only changes made with this client, in any version. Example: `claude-code`
    #[arg(long, value_name = "NAME", requires = "since")]
    pub client: Option<String>,
    /// Undo only changes by this token or user of the system
    #[arg(long, value_name = "NAME", requires = "since")]
    pub actor: Option<String>,
    /// Undo only changes from this source: mcp, api or admin
    #[arg(long, value_name = "SOURCE", requires = "since")]
    pub source: Option<String>,
    /// Undo only changes of this kind of document
    #[arg(long, value_name = "KIND", requires = "since")]
    pub kind: Option<DocumentKind>,
    /// Undo only changes of the document with this id
    #[arg(long, value_name = "ID", requires = "since")]
    pub id: Option<String>,
    /// Record this reason in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask, as a script needs it
    #[arg(long)]
    pub yes: bool,
}

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to do with the plan.
    #[command(subcommand)]
    pub command: PlanCommand,
}

/// What to do with a plan.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Show who made it, and what it would change
    Show {
        /// The plan's id, from `meta.plan` of the dry run
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Show it, ask, and make the change
    Apply {
        /// The plan's id, from `meta.plan` of the dry run
        #[arg(value_name = "ID")]
        id: String,
        /// Record this reason in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask, as a script needs it
        #[arg(long)]
        yes: bool,
    },
}

/// Options of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Kind of the document
    #[arg(value_name = "KIND")]
    pub kind: DocumentKind,
    /// Id of the document
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print it as it was at this time, in RFC 3339, or after the change with this audit id
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<String>,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Compare with the content of this time, in RFC 3339, or after the change with this audit id
    #[arg(value_name = "SINCE")]
    pub since: String,
    /// Compare the content of this time, or after the change with this audit id; without it, the
    /// content of now
    #[arg(value_name = "UNTIL")]
    pub until: Option<String>,
}

/// Kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DocumentKind {
    /// A client case study.
    Project,
    /// A downloadable good.
    Resource,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also run a live test against Redis. Uses temporary keys under `internal:smoke:` and deletes
    /// them afterwards
    #[arg(long)]
    pub smoke: bool,
    /// With --smoke: check whether the server closes a connection that has been idle for SECONDS
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "smoke",
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub idle: Option<u32>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Options of `http`, which are checked as `http` would check them.
    #[command(flatten)]
    pub http: HttpArgs,
}

/// How `doctor` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One line per check
    Text,
    /// One JSON object
    Json,
}
