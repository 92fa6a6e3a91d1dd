//! What a listener hears of deployments and incidents, over a real connection and signed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipeyard_model::{deployment::Outcome, plan::Strategy};
use serde_json::Value;

use super::{canary, harness::Harness};
use crate::{outgoing, tasks::outbox};

type Heard = Arc<Mutex<Vec<(HeaderMap, String)>>>;

async fn listen() -> (Heard, SocketAddr) {
    let heard = Heard::default();
    let receive = async |State(heard): State<Heard>, headers: HeaderMap, body: String| {
        heard.lock().unwrap().push((headers, body));
        StatusCode::NO_CONTENT
    };
    let app = Router::new().fallback(post(receive)).with_state(Arc::clone(&heard));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (heard, address)
}

/// Lets everything that waits leave; answers what arrived, each signature checked.
async fn told(h: &Harness, heard: &Heard) -> Vec<Value> {
    let made = h.post("/api/notifications/secret", "").await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    while h.state.store.outbox_counts().await.unwrap().waiting > 0 {
        outbox::round(&h.state).await.unwrap();
    }
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let arrived = std::mem::take(&mut *heard.lock().unwrap());
    let check = |(headers, body): (HeaderMap, String)| -> Value {
        let header = |name: &str| headers[name].to_str().unwrap();
        let seconds = header("webhook-timestamp").parse().unwrap();
        let signature = outgoing::sign(&key, header("webhook-id"), seconds, &body);
        assert_eq!(header("webhook-signature"), signature);
        serde_json::from_str(&body).unwrap()
    };
    arrived.into_iter().map(check).collect()
}

fn types(told: &[Value]) -> Vec<&str> {
    told.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn deployments_and_incidents_are_told_signed_and_in_order() {
    let (heard, address) = listen().await;
    let h = Harness::with(|config| {
        config.notify_url = Some(format!("http://{address}/told"));
        config.notify_private = true;
    })
    .await;
    let mut new = h.new_deployment("web", "a", Strategy::AllAtOnce).await;
    new.needs_approval = true;
    new.asks_approval = true;
    let first = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    assert_eq!(types(&told(&h, &heard).await), ["deployment.waiting_for_approval"]);
    h.post(&format!("/api/deployments/{first}/approve"), "{}").await;
    assert_eq!(h.until_over(first).await, Outcome::Succeeded);
    assert_eq!(types(&told(&h, &heard).await), ["deployment.started", "deployment.succeeded"]);

    h.fake.set_traffic(0.08, 200);
    let bad = h.ship("web", "b", canary(&[(10, 60)])).await;
    assert_eq!(h.until_over(bad).await, Outcome::RolledBack);
    let messages = told(&h, &heard).await;
    assert_eq!(types(&messages), ["deployment.started", "deployment.rolled_back"]);
    let (why, url) = (&messages[1]["data"]["reason"]["message"], &messages[1]["url"]);
    assert!(why.as_str().unwrap().contains("error_rate"), "the judge's words: {why}");
    assert_eq!(url, &format!("http://127.0.0.1:8470/deployments/{bad}"));

    let body = r#"{"environment": "production", "service": "web", "title": "checkout fails"}"#;
    let incident = h.post("/api/incidents", body).await;
    h.post(&format!("/api/incidents/{}/close", incident["id"]), "{}").await;
    let messages = told(&h, &heard).await;
    assert_eq!(types(&messages), ["incident.opened", "incident.resolved"]);
    assert_eq!(messages[0]["data"]["title"], "checkout fails");
    assert_eq!(messages[0]["url"], "http://127.0.0.1:8470/incidents");
}
