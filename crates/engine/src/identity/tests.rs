//! What identities show, and what other nodes receive of them.

use proptest::prelude::*;

use super::*;

#[test]
fn an_identity_never_shows_its_claims() {
    let claims = serde_json::json!({"secret": "s3cret"}).as_object().cloned().unwrap();
    let identity = Identity::named("ann").claims(claims);
    assert!(!format!("{identity:?}").contains("s3cret"));
    assert_eq!(identity.all_claims()["secret"], "s3cret");
}

#[test]
fn labels_are_computed_once_for_each_generation() {
    let (identity, mut computed) = (Identity::named("ann"), 0);
    let (one, two) = (Arc::<Generation>::default(), Arc::<Generation>::default());
    for generation in [&one, &one, &two, &two, &one] {
        identity.clone().labels(generation, |identity| {
            computed += 1;
            Labels::of(identity)
        });
    }
    assert_eq!(computed, 3);
}

#[test]
fn what_other_nodes_receive_is_the_same_but_for_extras() {
    let identity = Identity::issued("https://login.example.com", "ann")
        .client("editor")
        .scopes(["read"])
        .implied_scopes(["list"])
        .roles(["staff"])
        .expires(SystemTime::UNIX_EPOCH + Duration::from_secs(7), Duration::from_secs(1))
        .with(7_u32);
    let json = serde_json::to_string(&identity).unwrap();
    let there: Identity = serde_json::from_str(&json).unwrap();
    assert_eq!(there.principal(), "https://login.example.com#ann");
    assert_eq!(Labels::of(&there), Labels::of(&identity));
    assert_eq!((there.client_id(), there.good_until()), (Some("editor"), identity.good_until()));
    assert_eq!((there.get::<u32>(), identity.get::<u32>()), (None, Some(&7)));
}

proptest! {
    #[test]
    fn no_two_subjects_are_one_principal(
        issuers in prop::array::uniform2("https://[a-c#]{0,3}".prop_map(|it| it.replace('#', ""))),
        subjects in prop::array::uniform2("[a-c#:/]{0,6}"),
    ) {
        let [one, two] = [0, 1].map(|at| Identity::issued(&*issuers[at], &*subjects[at]));
        let same = issuers[0] == issuers[1] && subjects[0] == subjects[1];
        prop_assert_eq!(one.principal() == two.principal(), same);
    }
}

#[test]
fn what_another_node_has_found_counts_until_it_is_forgotten() {
    let generation = Arc::<Generation>::default();
    let carried: Labels = ["staff"].into_iter().collect();
    let sent = Identity::named("ann").with(7_u32).carrying(carried.clone());
    let there: Identity = serde_json::from_str(&serde_json::to_string(&sent).unwrap()).unwrap();
    assert_eq!(there.labels(&generation, Labels::of), carried);
    let forgotten = there.without_carried();
    assert_eq!(forgotten.labels(&generation, Labels::of), ["ann"].into_iter().collect());
    let json = serde_json::to_string(&forgotten).unwrap();
    assert!(!json.contains("labels"), "older nodes read it as before: {json}");
}
