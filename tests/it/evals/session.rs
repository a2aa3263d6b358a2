//! A model's client: what it shows the model of the server, and its calls.

use std::collections::BTreeSet;

use portfolio_mcp::domain::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::task::{Task, Turn};
use crate::support::{messages::client_hello, stdio::StdioClient};

/// The client through which the model works.
pub(crate) const CLIENT: (&str, &str) = ("assistant", "1.0");

/// What a model sees of a server.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Offer {
    pub(crate) instructions: String,
    /// Names, descriptions and input schemas.
    pub(crate) tools: Vec<Value>,
}

/// A call that was answered.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Called {
    /// As the client gets it.
    pub(crate) text: String,
    pub(crate) result: Value,
}

impl Called {
    /// `ok`, or the code of the error.
    pub(crate) fn outcome(&self) -> String {
        if self.result["success"] == json!(true) {
            return "ok".to_owned();
        }
        match &self.result["error"]["code"] {
            Value::String(code) => code.clone(),
            code => code.to_string(),
        }
    }
}

impl Offer {
    /// Connects as the model's client.
    pub(crate) async fn from(client: &StdioClient) -> Self {
        let hello = client_hello("2025-11-25", CLIENT.0, CLIENT.1);
        let initialized = client.result("initialize", hello).await;
        let notice = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        client.send(&notice.to_string()).await;
        let listed = client.result("tools/list", json!({})).await;
        let tools = listed["tools"].as_array().unwrap().iter().map(|tool| {
            json!({ "name": tool["name"], "description": tool["description"], "inputSchema": tool["inputSchema"] })
        });
        Self {
            instructions: initialized["instructions"].as_str().unwrap().to_owned(),
            tools: tools.collect(),
        }
    }

    /// Differs when anything that a model sees differs.
    pub(crate) fn hash(&self) -> String {
        let seen = json!([self.instructions, self.tools]).to_string();
        sha256_hex(seen.as_bytes())[..16].to_owned()
    }

    /// The tools and arguments of the task's solution that the server does not have.
    pub(crate) fn lacks(&self, task: &Task) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        for turn in &task.reference {
            let Turn::Call {
                tool, arguments, ..
            } = turn
            else {
                continue;
            };
            let Some(offered) = self.tools.iter().find(|offered| offered["name"] == *tool) else {
                missing.insert(tool.clone());
                continue;
            };
            let known = &offered["inputSchema"]["properties"];
            for name in arguments.as_object().unwrap().keys() {
                if known.get(name).is_none() {
                    missing.insert(format!("{tool}.{name}"));
                }
            }
        }
        missing
    }
}

/// Calls a tool, whatever comes of it.
pub(crate) async fn call(client: &StdioClient, tool: &str, arguments: &Value) -> Called {
    let params = json!({ "name": tool, "arguments": arguments });
    match client.request("tools/call", params).await.unwrap() {
        Ok(result) => {
            let text = result["content"][0]["text"].as_str().unwrap();
            Called {
                text: text.to_owned(),
                result: serde_json::from_str(text).unwrap(),
            }
        }
        Err(error) => Called {
            text: format!(
                "MCP error {}: {}",
                error["code"],
                error["message"].as_str().unwrap()
            ),
            result: json!({ "error": error }),
        },
    }
}
