use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::Path;
use tempfile::TempDir;

/// An authority and a certificate that it signed for 127.0.0.1.
fn certificates(dir: &Path) -> TlsSettings {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let mut node = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = node.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let settings = TlsSettings {
        certificate_file: dir.join("node.pem"),
        key_file: dir.join("node.key"),
        authority_file: dir.join("authority.pem"),
    };
    std::fs::write(&settings.certificate_file, certificate.pem()).unwrap();
    std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
    std::fs::write(&settings.authority_file, root.pem()).unwrap();
    settings
}

fn node(store: u64, tls: Option<&TlsSettings>) -> Node {
    Node::with(identity(store), TransportSettings { tls: tls.cloned(), ..settings() }, "127.0.0.1:0")
}

fn ask(from: &Node, to: &Node) -> Result<(Identity, Bytes), CallError> {
    run(from.transport.ask(&to.address, Channel::Control, "x".into(), HANG))
}

#[test]
fn nodes_with_certificates_of_one_authority_meet() {
    let dir = TempDir::new().unwrap();
    let tls = certificates(dir.path());
    let (one, two) = (node(1, Some(&tls)), node(2, Some(&tls)));
    one.knows(&[&two]);
    one.sees_up(&two);
    two.sees_up(&one);
    for lane in [Lane::Control, Lane::Data(0), Lane::Data(1)] {
        two.send(&one, lane, "over TLS").unwrap();
        one.sees(&two.message(lane, "over TLS"));
    }
    let body: Bytes = vec![5; 700_000].into();
    let call = one.transport.call(two.store, Lane::Data(0), Channel::Forward, body.clone(), HANG);
    assert_eq!(run(call), Ok(body));
    assert!(ask(&one, &two).is_ok());
}

#[test]
fn others_stay_outside() {
    let (dir, other_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (tls, other) = (certificates(dir.path()), certificates(other_dir.path()));
    // Trusts the others' authority, but shows a certificate that they do not trust.
    let half = TlsSettings { authority_file: tls.authority_file.clone(), ..other.clone() };
    let (inside, plain) = (node(1, Some(&tls)), node(2, None));
    for (from, reason) in [
        (node(3, Some(&other)), "TLS failed: invalid peer certificate"),
        (node(4, Some(&half)), "TLS failed: received fatal alert"),
    ] {
        let refused = ask(&from, &inside);
        assert!(matches!(&refused, Err(CallError::NotSent(text)) if text.contains(reason)), "{refused:?}");
    }
    let refused = ask(&plain, &inside);
    assert!(matches!(&refused, Err(CallError::NotSent(text)) if text.contains("TLS only")), "{refused:?}");
    let refused = ask(&inside, &plain);
    assert!(matches!(&refused, Err(CallError::NotSent(text)) if text.contains("wants TLS")), "{refused:?}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let dir = TempDir::new().unwrap();
    let tls = certificates(dir.path());
    for file in [&tls.certificate_file, &tls.key_file, &tls.authority_file] {
        let whole = std::fs::read(file).unwrap();
        for content in [Some(&b"nothing"[..]), None] {
            let _ = std::fs::remove_file(file);
            content.iter().for_each(|content| std::fs::write(file, content).unwrap());
            let reason = super::super::tls::Tls::load(&tls).err().expect("it can't be used");
            assert!(reason.contains(&file.display().to_string()), "{reason}");
        }
        std::fs::write(file, whole).unwrap();
    }
    assert!(super::super::tls::Tls::load(&tls).is_ok());
}
