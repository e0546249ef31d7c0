//! Who may keep a link of the backplane: whoever has made an authorised request in time.

mod support;

use std::time::Duration;

use support::gateway;
use tokio::time::timeout;

/// Makes one request if there is a secret to show, and tells whether the link is still there long after the handshake.
async fn lasts(secret: Option<&str>) -> bool {
    let gateway = gateway(|config| config.backplane_secret = "the fleet's own secret".into()).await;
    let (mut client, connection) = h2::client::handshake(gateway.pipe()()).await.expect("an HTTP/2 handshake");
    let mut connection = tokio::spawn(connection);
    if let Some(secret) = secret {
        let request = http::Request::post("http://gateway/nothing").header("authorization", format!("Bearer {secret}"));
        let (response, _) =
            client.send_request(request.body(()).expect("a valid request"), true).expect("a stream of its own");
        response.await.expect("an answer");
    }
    timeout(Duration::from_secs(7), &mut connection).await.is_err()
}

#[tokio::test]
async fn a_link_without_an_authorised_request_is_ended() {
    let (silent, stranger, logic) =
        tokio::join!(lasts(None), lasts(Some("another secret")), lasts(Some("the fleet's own secret")));

    assert_eq!((silent, stranger, logic), (false, false, true));
}
