//! What a client's certificate says of its owner, in RabbitMQ's words.
//!
//! Owns: subject and issuer as text, the validity, and the name that logs in by EXTERNAL. Whether the
//! certificate can be believed was decided before.
//! Bound: as long as TLS lets a handshake be, 64 KiB.
//! Spec: RFC 4514 §2; RabbitMQ's `rabbit_cert_info` and `ssl_cert_login_from`.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::config::{LoginFrom, SanType, TlsSettings};
use crate::session::PeerCertificate;

/// Reads a certificate that was verified; `None` if it is none.
pub(super) fn describe(der: &[u8], settings: &TlsSettings) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(PeerCertificate {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        validity: format!(
            "{} - {}",
            calendar(&validity.not_before),
            calendar(&validity.not_after)
        ),
        login: login(&certificate, settings),
    })
}

/// When a certificate runs out: in seconds since 1970, and by the calendar.
pub(super) fn expires(der: &[u8]) -> Option<(i64, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let end = &certificate.validity().not_after;
    Some((end.timestamp(), calendar(end)))
}

/// The name to log in with, where the certificate has one of the kind that is set.
// req: LOGIN-2
fn login(certificate: &X509Certificate<'_>, settings: &TlsSettings) -> Option<String> {
    let name = match settings.login_from {
        LoginFrom::DistinguishedName => distinguished_name(certificate.subject()),
        LoginFrom::CommonName => {
            let names = certificate.subject().iter_common_name();
            let names: Vec<_> = names.map(value).collect();
            names.join(",")
        }
        LoginFrom::SubjectAlternativeName => {
            let names = certificate.subject_alternative_name().ok()??;
            let names = names.value.general_names.iter();
            let mut of_type = names.filter_map(|name| alternative(name, settings.login_san_type));
            of_type.nth(settings.login_san_index)?
        }
    };
    (!name.is_empty()).then_some(name)
}

fn alternative(name: &GeneralName<'_>, wanted: SanType) -> Option<String> {
    match (wanted, name) {
        (SanType::Dns, GeneralName::DNSName(name))
        | (SanType::Email, GeneralName::RFC822Name(name))
        | (SanType::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
        (SanType::Ip, GeneralName::IPAddress(octets)) => {
            if let Ok(octets) = <[u8; 4]>::try_from(*octets) {
                return Some(Ipv4Addr::from(octets).to_string());
            }
            let octets = <[u8; 16]>::try_from(*octets).ok()?;
            Some(Ipv6Addr::from(octets).to_string())
        }
        _ => None,
    }
}

/// A name from its most special part to its most general one, as RFC 4514 writes it.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let attributes: Vec<_> = part.iter().map(attribute).collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(id, _)| *id == oid);
    let kind = known.map_or(oid.as_str(), |(_, kind)| kind);
    format!("{kind}={}", escaped(&value(attribute)))
}

/// A value's characters. Strings that are not UTF-8 are read octet by octet, as Latin-1.
fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    let octets = attribute.attr_value().data;
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    }
}

/// What would be read as part of the syntax is escaped (RFC 4514 §2.4).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', character]),
            ' ' | '#' if index == 0 => text.extend(['\\', character]),
            ' ' if index == last => text.push_str("\\ "),
            '\0' => text.push_str("\\00"),
            _ => text.push(character),
        }
    }
    text
}

fn calendar(time: &ASN1Time) -> String {
    let time = time.to_datetime();
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

/// RabbitMQ's short names; what has none is written with its numbers.
const ATTRIBUTES: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType as RcgenSan};

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["one.example".to_owned()]).expect("a name");
        params.subject_alt_names.extend([
            RcgenSan::DnsName("two.example".try_into().expect("ASCII")),
            RcgenSan::Rfc822Name("me@example".try_into().expect("ASCII")),
            RcgenSan::IpAddress([10, 0, 0, 7].into()),
        ]);
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, "client");
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    /// Each setting takes its own name, and where there is none nobody logs in.
    // req: LOGIN-2
    #[test]
    fn the_login_is_the_name_that_is_set() {
        let der = certificate();
        let check = |login_from, login_san_type, login_san_index, expected: Option<&str>| {
            let settings = TlsSettings {
                login_from,
                login_san_type,
                login_san_index,
                ..TlsSettings::default()
            };
            let described = describe(&der, &settings).expect("a certificate");
            assert_eq!(described.login.as_deref(), expected);
        };
        let (dn, san) = (
            LoginFrom::DistinguishedName,
            LoginFrom::SubjectAlternativeName,
        );
        check(dn, SanType::Dns, 0, Some("CN=client,O=Example\\, Inc."));
        check(LoginFrom::CommonName, SanType::Dns, 0, Some("client"));
        check(san, SanType::Dns, 0, Some("one.example"));
        check(san, SanType::Dns, 1, Some("two.example"));
        check(san, SanType::Dns, 2, None);
        check(san, SanType::Email, 0, Some("me@example"));
        check(san, SanType::Ip, 0, Some("10.0.0.7"));
        check(san, SanType::Uri, 0, None);
    }

    /// What is no certificate is none.
    #[test]
    fn garbage_is_no_certificate() {
        assert!(describe(b"\x30\x82\xff\xff", &TlsSettings::default()).is_none());
        assert!(describe(b"", &TlsSettings::default()).is_none());
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped(" a#b "), "\\ a#b\\ ");
        assert_eq!(escaped("#\0,+"), "\\#\\00\\,\\+");
        assert_eq!(escaped(""), "");
    }
}
