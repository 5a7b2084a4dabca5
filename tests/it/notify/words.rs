//! What goes out, by which way, to whom.

use bson::doc;

use super::{CHANNELS, lead_ids, listed, real_relay, somebody, submit, submit_to};
use crate::support::providers::{Providers, header, notifying, notifying_reference};
use crate::support::reference::Reference;
use crate::support::web::Web;

/// What a campaign's type is, and by which ways it notifies.
const TYPES: [(Option<&str>, &[&str]); 4] = [
    (Some("only_send_email"), &["email", "push"]),
    (Some("only_send_sms"), &["sms", "push"]),
    (Some("send_email_sms"), &["email", "sms", "push"]),
    (None, &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_notifies_by_the_ways_that_its_type_names_and_once_by_each() {
    let providers = Providers::start().await;
    let mut reference = notifying_reference();
    let campaigns = TYPES.map(|(kind, _)| {
        let mut details = notifying();
        details.insert("notification_type", kind);
        reference.another_campaign("generic", details)
    });
    let build = providers.build().reference(reference.to_import());
    let node = build.start().await;
    for (campaign, id) in campaigns.into_iter().zip(1..) {
        submit_to(&node, &reference, campaign, id).await;
    }
    node.settled().await;
    let ids = lead_ids(&node).await;
    let pushed = providers.pushes();
    let pushed: Vec<_> = pushed
        .iter()
        .map(|(lead, count)| (format!("Lead {}", ids[lead]), *count))
        .collect();
    for (channel, taken) in [
        ("email", providers.mails()),
        ("sms", providers.texts()),
        ("push", pushed.into_iter().collect()),
    ] {
        let wanted = TYPES.iter().zip(1..);
        let wanted = wanted.filter(|((_, ways), _)| ways.contains(&channel));
        let wanted = super::each(wanted.map(|(_, id)| id), 1);
        assert_eq!(taken, wanted, "{channel}");
    }
    assert_eq!(listed(&node, &["--state", "sent"]).await.len(), 7);
    assert_eq!(listed(&node, &[]).await.len(), 7, "nothing else was wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_says_what_the_campaign_says_and_names_what_it_could_not_attach() {
    let (server, build) = real_relay().await;
    let web = Web::start().await;
    web.file(
        "/secret.pdf",
        "application/pdf",
        b"of the node's own network",
    );
    let mut reference = Reference::sample();
    let campaign = reference.campaign("generic");
    reference.change(
        campaign,
        doc! {
            "notification_type": "only_send_email",
            "email_details": {
                "subject": "{{Name}} asks for {{budget}}",
                "content": "<p>{{name}} &amp; {{budget}}</p><p>{{user_name}}: {{campaign_name}}</p>",
                "from": "Sales <sales@harbour.example>",
                "reply_to": { "name": "Desk", "email": "desk@harbour.example" },
                "attachments": [{ "name": "Brochure.pdf", "url": web.url("/secret.pdf") }],
            },
        },
    );
    let node = build.reference(reference.to_import()).start().await;
    let mut body = somebody("1");
    body["name"] = "Ada <script>".into();
    body["budget"] = "1 & 2".into();
    let reply = node
        .post("generic", reference.account, campaign, &body)
        .await;
    assert!(reply.is_acknowledged());
    node.settled().await;

    let [mail] = &server.taken()[..] else {
        panic!("{:?} {:?}", server.taken(), listed(&node, &[]).await);
    };
    assert_eq!(mail["subject"], "Ada <script> asks for 1 & 2");
    assert_eq!(mail["from"], "leads@inlet.example", "the envelope's sender");
    assert_eq!(mail["sender"], "Sales <sales@harbour.example>");
    let to = mail["to"][0].as_str().unwrap();
    assert!(to.ends_with("@harbour.example"), "{mail:#}");
    let html = mail["html"].as_str().unwrap();
    assert!(
        html.contains("<p>Ada &lt;script&gt; &amp; 1 &amp; 2</p>"),
        "{html}"
    );
    assert!(html.contains(": Spring generic</p>"), "{html}");
    let text = mail["text"].as_str().unwrap();
    assert!(text.contains("Ada <script> & 1 & 2"), "{text}");
    for said in [html, text] {
        assert!(said.contains("Not attached: Brochure.pdf"), "{said}");
    }
    assert_eq!(mail["attachments"].as_array().unwrap().len(), 0);
    assert_eq!(web.connections(), 0, "a node's own network is not asked");
    let log = node.log_tail();
    assert!(
        log.contains("without an attachment") && log.contains(".d1\""),
        "{log}"
    );
    // Without a push there is no device; that is no error of the lead's.
    assert_eq!(listed(&node, &["--state", "failed"]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_without_texts_of_its_own_says_the_standard_one() {
    const STANDARD: &str = "A new Inbound lead has been assigned to you.";
    let providers = Providers::start().await;
    let mut reference = notifying_reference();
    let campaign = reference.another_campaign(
        "generic",
        doc! { "notification_type": "send_email_sms", "sms_details": { "from": "MG0123456789abcdef0123456789abcdef" } },
    );
    let node = providers
        .build()
        .reference(reference.to_import())
        .start()
        .await;
    submit_to(&node, &reference, campaign, "1").await;
    node.settled().await;
    let mail = &providers.smtp.taken()[0];
    assert_eq!(header(&mail.text, "Subject"), STANDARD);
    assert!(
        mail.text.ends_with(&format!("\r\n\r\n{STANDARD}\r\n\r\n")),
        "{}",
        mail.text
    );
    assert_eq!(header(&mail.text, "From"), "Leads <leads@inlet.example>");
    let sms = &providers.twilio.taken()[0];
    assert_eq!((sms.body.as_str(), sms.from.as_str()), (STANDARD, ""));
    assert!(sms.messaging_service.starts_with("MG"));
    let push = &providers.fcm.taken()[0];
    assert_eq!(push.notification["title"], STANDARD);
    assert_eq!(push.notification["body"], STANDARD);
    assert_eq!(push.data["type"], "lead_assigned");
    assert_eq!(push.data["module"], "inbound");
    assert!(lead_ids(&node).await.contains_key(&push.data["lead_id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sms_goes_to_the_campaigns_number_for_the_user_else_to_the_users_own() {
    let providers = Providers::start().await;
    let mut reference = notifying_reference();
    let [one, other] = reference.users;
    let campaign = reference.campaign("generic");
    // As a person writes it, in the campaign's country.
    let selected = vec![doc! { "id": one, "custom_number": "(415) 555-0199" }];
    reference.change(campaign, doc! { "selected_user": selected });
    let theirs = doc! { "selected_user": [{ "id": other }] };
    let mut details = notifying();
    details.extend(theirs);
    let plain = reference.another_campaign("generic", details);
    let node = providers
        .build()
        .reference(reference.to_import())
        .start()
        .await;
    for (campaign, id) in [(campaign, "1"), (plain, "2")] {
        submit_to(&node, &reference, campaign, id).await;
    }
    node.settled().await;
    let mut taken: Vec<_> = providers
        .twilio
        .taken()
        .into_iter()
        .map(|sms| (sms.body, sms.to))
        .collect();
    taken.sort_unstable();
    let wanted = [("Lead 1", "+14155550199"), ("Lead 2", "+14155550122")];
    assert_eq!(
        taken,
        wanted.map(|(body, to)| (body.to_owned(), to.to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_to_every_device_and_one_that_is_gone_is_asked_once() {
    let providers = Providers::start().await;
    let mut reference = notifying_reference();
    for user in reference.users {
        reference.change(user, doc! { "fcm_tokens": ["old", "new"] });
    }
    providers.fcm.unregister("old");
    let node = providers
        .build()
        .reference(reference.to_import())
        .start()
        .await;
    submit(&node, &reference, 1).await;
    node.settled().await;
    assert_eq!(providers.fcm.messages_asked(), 2);
    let taken = providers.fcm.taken();
    assert_eq!((taken.len(), taken[0].token.as_str()), (1, "new"));
    submit(&node, &reference, 2).await;
    node.settled().await;
    assert_eq!(
        providers.fcm.messages_asked(),
        3,
        "the old one is forgotten"
    );

    providers.fcm.unregister("new");
    submit(&node, &reference, 3).await;
    node.settled().await;
    submit(&node, &reference, 4).await;
    node.settled().await;
    assert_eq!(providers.fcm.messages_asked(), 4);
    let failed = listed(&node, &["--state", "failed", "--channel", "push"]).await;
    assert_eq!(failed.len(), 2);
    for one in failed {
        let error = one["last_error"].as_str().unwrap();
        assert!(error.starts_with("the user has no device"), "{error}");
    }
    for channel in CHANNELS {
        let health = &node.status().await["deliveries"][channel]["channel"];
        assert_eq!(health, "ok", "{channel}");
    }
}
