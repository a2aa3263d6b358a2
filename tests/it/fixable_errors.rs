//! A broken call is refused with what it takes to repair it: a script that knows nothing but the call
//! and the error sends it again, and it succeeds.

use portfolio_mcp::clock;
use serde_json::{Value, json};

use self::repair::repaired;
use crate::{
    evals::fill_with_content,
    support::{stdio::StdioClient, stores::Store},
};

mod calls;
mod repair;

#[tokio::test]
async fn sixty_broken_calls_are_repaired_from_their_errors_alone() {
    let store = Store::sqlite();
    fill_with_content(&store, clock()).await;
    let mut arguments = store.arguments();
    arguments.push("--toolsets=all".to_owned());
    let client = StdioClient::start_with(&arguments).await;
    let calls = calls::rejected(&client).await;
    let mut failed = Vec::new();

    for (tool, arguments) in &calls {
        let first = send(&client, tool, arguments).await;
        assert_ne!(first["success"], true, "{tool} {arguments} is not broken");
        let (tool_again, repaired) = repaired(tool, arguments, &first["error"]);
        let again = send(&client, &tool_again, &repaired).await;
        if again["success"] != true {
            let (error, problem) = (&first["error"]["message"], &again["error"]["message"]);
            failed.push(format!(
                "{tool} {arguments}\n  {error}\n  repaired: {tool_again} {repaired}\n  {problem}"
            ));
        }
    }

    assert_eq!(calls.len(), 60);
    let solved = calls.len() - failed.len();
    assert!(failed.is_empty(), "{solved} of 60\n{}", failed.join("\n"));
    store.assert_sound().await;
}

/// What comes of a call: its output, or the error of the protocol.
async fn send(client: &StdioClient, tool: &str, arguments: &Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    match client.request("tools/call", params).await.unwrap() {
        Ok(result) => {
            let text = result["content"][0]["text"].as_str().unwrap();
            serde_json::from_str(text).unwrap()
        }
        Err(error) => json!({ "success": false, "error": error }),
    }
}
