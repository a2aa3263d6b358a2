//! TLS with a Redis whose certificate is signed by a private authority, and everything that can go
//! wrong with it.

use std::{fs, path::PathBuf, sync::Arc};

use portfolio_mcp::store::{Authority, Location, RedisUrl, Repository, StoreError, open};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use redis::cmd;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    fixtures::{change, create_sound, once, project_key},
    program::{Home, PROGRAM},
    redis::{PASSWORD, RedisServer, free_port},
    soundness,
    stdio::StdioClient,
    wait_until,
};

/// A Redis that accepts TLS on one port, and plain connections for the test itself on another.
struct Secured {
    server: RedisServer,
    port: u16,
    files: TempDir,
}

impl Secured {
    fn start() -> Self {
        let files = TempDir::new().unwrap();
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("other.pem", self::authority().pem()),
            ("cert.pem", certificate.pem()),
        ] {
            fs::write(files.path().join(name), text).unwrap();
        }
        fs::write(files.path().join("key.pem"), key.serialize_pem()).unwrap();
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        let port = free_port();
        let server = RedisServer::start_with(&[
            "--save",
            "",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &path("cert.pem"),
            "--tls-key-file",
            &path("key.pem"),
            "--tls-ca-cert-file",
            &path("ca.pem"),
            "--tls-auth-clients",
            "no",
        ]);
        server.user("site", &["~*", "+@all"]);
        Self {
            server,
            port,
            files,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn url(&self) -> String {
        format!("rediss://site:{PASSWORD}@localhost:{}", self.port)
    }

    /// How many connections the server has accepted.
    fn connections(&self) -> u64 {
        self.server.info("stats", "total_connections_received")
    }

    fn store(&self, url: &str, authority: Option<&str>) -> Arc<dyn Repository> {
        let location = Location::Redis {
            write: Some(RedisUrl::parse(url).unwrap()),
            read: None,
            key_prefix: String::new(),
        };
        let location = match authority {
            Some(name) => location
                .with_authority(&Authority::parse(&fs::read(self.file(name)).unwrap()).unwrap())
                .unwrap(),
            None => location,
        };
        open(&location).unwrap().repository
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn a_store_with_a_private_authority_can_be_imported_into_listed_and_updated() {
    let secured = Secured::start();
    let (url, ca) = (
        secured.url(),
        secured.file("ca.pem").to_str().unwrap().to_owned(),
    );
    let home = Home::new();

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/content");
    let imported = home
        .command(PROGRAM)
        .args(["import", folder, "--store", &url])
        .env("PORTFOLIO_CA_FILE", &ca)
        .output()
        .unwrap();
    let client = StdioClient::start_with(&["--store", &url, "--ca-file", &ca]).await;
    let listed = client.call("list_projects", json!({})).await;
    let updated = client
        .call(
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "Over TLS" } }),
        )
        .await;

    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    assert_eq!(listed["meta"]["total"], 3, "{listed}");
    assert_eq!(updated["data"]["title"], "Over TLS", "{updated}");
    soundness::assert_sound(&*secured.store(&url, Some("ca.pem"))).await;
}

/// Mistakes: the address, the authority's file, and what the error has to say.
fn mistakes(secured: &Secured) -> [(String, Option<&'static str>, &'static str); 5] {
    let port = secured.port;
    [
        (
            format!("rediss://site:{PASSWORD}@127.0.0.1:{port}"),
            Some("ca.pem"),
            "it is for another host",
        ),
        (secured.url(), None, "--ca-file (PORTFOLIO_CA_FILE)"),
        (
            secured.url(),
            Some("other.pem"),
            "--ca-file (PORTFOLIO_CA_FILE)",
        ),
        (
            format!("rediss://site:wr0ng@localhost:{port}"),
            Some("ca.pem"),
            "wrong user name or password",
        ),
        (
            format!("rediss://localhost:{port}"),
            Some("ca.pem"),
            "it requires a password",
        ),
    ]
}

#[tokio::test]
async fn a_rejected_password_or_certificate_is_reported_with_a_remedy_and_tried_once() {
    let secured = Secured::start();
    let good = secured.store(&secured.url(), Some("ca.pem"));
    create_sound(&*good, &project_key("a")).await;
    secured
        .server
        .run::<()>(cmd("ACL").arg(&["SETUSER", "default", "resetpass", ">unknown"]));
    let before = secured.server.dump();

    for (url, authority, remedy) in mistakes(&secured) {
        let store = secured.store(&url, authority);
        let change = change(&*good, &project_key("a"), json!({ "title": "New" })).await;
        let connections = secured.connections();

        let read = store.get(&project_key("a")).await.unwrap_err();
        let written = store.commit(&[change], &once()).await.unwrap_err();

        for error in [read, written] {
            let StoreError::AccessDenied { .. } = &error else {
                panic!("{url}: {error:?}")
            };
            let reason = error.to_string();
            assert!(reason.contains(remedy), "{url}: {reason}");
            assert!(
                !reason.contains(PASSWORD) && !reason.contains("wr0ng"),
                "{reason}"
            );
        }
        // The store has two connections.
        assert!(
            secured.connections() - connections <= 2,
            "{url} is hammered"
        );
    }
    assert_eq!(secured.server.dump(), before);
}

#[tokio::test]
async fn a_connection_problem_is_logged_once_with_its_remedy() {
    let secured = Secured::start();
    secured
        .server
        .run::<()>(cmd("ACL").arg(&["SETUSER", "default", "resetpass", ">unknown"]));
    let plain = [
        (
            format!(
                "rediss://site:{PASSWORD}@localhost:{}",
                secured.server.port()
            ),
            Some("ca.pem"),
            "`redis://` if not",
        ),
        (
            format!("redis://site:{PASSWORD}@localhost:{}", secured.port),
            None,
            "`rediss://` if the port uses TLS",
        ),
    ];

    for (url, authority, remedy) in mistakes(&secured).into_iter().chain(plain) {
        let mut arguments = vec!["--store".to_owned(), url.clone()];
        if let Some(name) = authority {
            arguments.extend([
                "--ca-file".to_owned(),
                secured.file(name).to_str().unwrap().to_owned(),
            ]);
        }
        let client = StdioClient::start_with(&arguments).await;

        let answer = client
            .call(
                "update_project",
                json!({ "id": "a", "data": { "title": "New" } }),
            )
            .await;

        let (code, message) = (
            &answer["error"]["code"],
            answer["error"]["message"].as_str().unwrap(),
        );
        assert_eq!(code, "STORE_UNAVAILABLE", "{url}: {answer}");
        assert!(
            ["not trusted", "could not log in", "cannot be reached"]
                .iter()
                .any(|reason| message.contains(reason)),
            "{url}: {message}"
        );
        assert!(message.contains("nothing was changed"), "{message}");
        assert!(
            !message.contains("--ca-file") && !message.contains("REDIS_URL"),
            "a client cannot change the server's settings: {message}"
        );
        let stderr = wait_until("the log has the remedy", || {
            Some(client.stderr()).filter(|log| log.contains(remedy))
        });
        assert_eq!(stderr.matches(remedy).count(), 1, "{url}: {stderr}");
        assert!(
            ![message, &stderr]
                .iter()
                .any(|text| text.contains(PASSWORD) || text.contains("wr0ng")),
            "{message}\n{stderr}"
        );
    }
    assert!(secured.server.dump().is_empty());
}

#[tokio::test]
async fn doctor_connects_with_the_right_authority_and_otherwise_names_the_option() {
    let secured = Secured::start();
    let (url, ca, home) = (secured.url(), secured.file("ca.pem"), Home::new());
    let doctor = |authority: &[&str]| {
        home.command(PROGRAM)
            .args(["doctor", "--smoke", "--store", &url])
            .args(authority)
            .output()
            .unwrap()
    };

    let trusted = doctor(&["--ca-file", ca.to_str().unwrap()]);
    let unknown = doctor(&[]);

    let log = String::from_utf8(unknown.stdout).unwrap();
    assert_eq!(trusted.status.code(), Some(0), "{log}");
    assert_eq!(unknown.status.code(), Some(3), "{log}");
    assert!(
        log.contains("--ca-file") && !log.contains(PASSWORD),
        "{log}"
    );
    assert!(secured.server.dump().is_empty());
}

#[test]
fn a_file_without_a_valid_authority_is_rejected_at_the_start() {
    let home = Home::new();
    let files = TempDir::new().unwrap();
    let path = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = KeyPair::generate().unwrap().serialize_pem();
    let (empty, garbled, key) = (
        path("empty.pem", ""),
        path(
            "garbled.pem",
            "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
        ),
        path("key.pem", &key),
    );
    let false_certificate = path(
        "false.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let good = path("ca.pem", &authority().pem());
    let cases = [
        (
            "rediss://localhost:1",
            files.path().join("nowhere").to_str().unwrap().to_owned(),
            "cannot be read",
        ),
        ("rediss://localhost:1", empty, "contains no certificate"),
        ("rediss://localhost:1", key, "contains no certificate"),
        ("rediss://localhost:1", garbled, "is not valid PEM"),
        (
            "rediss://localhost:1",
            false_certificate,
            "contains a certificate that cannot be used",
        ),
        ("redis://localhost:1", good.clone(), "use `rediss://…`"),
        ("sqlite:x.db", good, "choose a Redis"),
    ];

    for (store, file, problem) in cases {
        let output = home
            .command(PROGRAM)
            .args(["stdio", "--store", store, "--ca-file", &file])
            .output()
            .unwrap();

        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{file}: {stderr}");
        assert!(
            stderr.contains("--ca-file (PORTFOLIO_CA_FILE)") && stderr.contains(problem),
            "{file}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[tokio::test]
async fn a_running_server_connects_once_the_password_is_corrected() {
    let secured = Secured::start();
    let url = format!("redis://site:other@127.0.0.1:{}", secured.server.port());
    let client = StdioClient::start_with(&["--store", &url]).await;
    let refused = client.call("list_projects", json!({})).await;
    assert_eq!(refused["error"]["code"], "STORE_UNAVAILABLE", "{refused}");

    secured
        .server
        .run::<()>(cmd("ACL").arg(&["SETUSER", "site", ">other"]));
    client
        .call_until("list_projects", json!({}), |answer| {
            answer["success"] == true
        })
        .await;
}
