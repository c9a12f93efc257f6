//! Who the pod is, and where the Kubernetes API and the token for it are.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;

/// Where a pod's service account is mounted.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the downward API is used to give what is missing.
const DOWNWARD: &str = "give it to the container by the downward API";

/// The longest name of an object in Kubernetes, in bytes.
const NAME: usize = 253;

/// The pod of this process, and the way to its API. A value of this type is complete: the token and
/// the authority were there when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    /// The container of this process.
    pub(super) container: Option<String>,
    pub(super) server: Uri,
    /// The directory of `token` and `ca.crt`.
    pub(super) credentials: PathBuf,
}

impl Place {
    /// Reads it from the environment and from the directory of the service account. A developer's
    /// kubeconfig is never looked at.
    ///
    /// | variable | is |
    /// |---|---|
    /// | `POD_NAME`, `POD_UID` | the pod, from the downward API |
    /// | `POD_NAMESPACE` | its namespace; without it the file `namespace` beside the token |
    /// | `CONTAINER_NAME` | this container, where it is told |
    /// | `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` | the API; the kubelet sets them |
    /// | `EXECPOOL_TOKEN_DIR` | where `token` and `ca.crt` are, unless at the usual place |
    ///
    /// # Errors
    /// All that is missing or is not what it should be.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Missing> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut missing = Missing(Vec::new());
        let credentials = given("EXECPOOL_TOKEN_DIR").unwrap_or_else(|| MOUNT.to_owned());
        let credentials = PathBuf::from(credentials);
        for file in ["token", "ca.crt"] {
            missing.unless_readable(&credentials.join(file));
        }
        let namespace = given("POD_NAMESPACE").or_else(|| {
            let text = fs::read_to_string(credentials.join("namespace")).ok()?;
            Some(text.trim().to_owned())
        });
        let pod = missing.name("POD_NAME", given("POD_NAME"));
        let namespace = missing.name("POD_NAMESPACE", namespace);
        let uid = missing.name("POD_UID", given("POD_UID"));
        let host = missing.given("KUBERNETES_SERVICE_HOST", given("KUBERNETES_SERVICE_HOST"));
        let port = missing.given("KUBERNETES_SERVICE_PORT", given("KUBERNETES_SERVICE_PORT"));
        let server = missing.server(&host, &port);
        match server {
            Some(server) if missing.0.is_empty() => Ok(Self {
                pod,
                namespace,
                uid,
                container: given("CONTAINER_NAME"),
                server,
                credentials,
            }),
            _ => Err(missing),
        }
    }

    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its uid: another pod of the same name has another.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

/// What is missing, so that the Kubernetes API can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Missing(Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the Kubernetes API can't be used: {}; or set reactor.kubernetes: off",
            self.0.join("; ")
        )
    }
}

impl Missing {
    fn unless_readable(&mut self, file: &Path) {
        if let Err(error) = fs::File::open(file) {
            let file = file.display();
            self.0.push(format!(
                "{file}: {error} (mount the service account's token into this container, or set \
                 EXECPOOL_TOKEN_DIR to where it is)"
            ));
        }
    }

    fn given(&mut self, variable: &str, value: Option<String>) -> String {
        value.unwrap_or_else(|| {
            let how = match variable.starts_with("POD_") {
                true => DOWNWARD,
                false => "the kubelet sets it in every pod",
            };
            self.0.push(format!("{variable} is not set ({how})"));
            String::new()
        })
    }

    /// A name that becomes part of a path.
    fn name(&mut self, variable: &str, value: Option<String>) -> String {
        let name = self.given(variable, value);
        let is_odd = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
        if name.len() > NAME || name.contains(is_odd) || name.starts_with('.') {
            self.0.push(format!(
                "{variable}={name:.80?} is no name of Kubernetes ({DOWNWARD})"
            ));
        }
        name
    }

    fn server(&mut self, host: &str, port: &str) -> Option<Uri> {
        if host.is_empty() || port.is_empty() {
            return None; // which has been said
        }
        let authority = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => host.to_owned(),
        };
        let port_number = port.parse::<u16>().ok().filter(|port| *port != 0);
        let uri = port_number.and_then(|port| format!("https://{authority}:{port}").parse().ok());
        if uri.is_none() {
            self.0.push(format!(
                "KUBERNETES_SERVICE_HOST={host:.80?} and KUBERNETES_SERVICE_PORT={port:.20?} are \
                 no address (the kubelet sets them in every pod)"
            ));
        }
        uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 5] = [
        ("POD_NAME", "agent-7d9f-x2"),
        ("POD_NAMESPACE", "agents"),
        ("POD_UID", "0b0e-1"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];

    fn mounted() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("token", "t"), ("ca.crt", "c"), ("namespace", "of-file\n")] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        folder
    }

    fn find(folder: &Path, but: &[(&str, &str)]) -> Result<Place, Missing> {
        Place::find(|name| {
            let own = ("EXECPOOL_TOKEN_DIR", folder.to_str().unwrap());
            let all = but.iter().chain([&own]).chain(&FULL);
            all.clone()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_pod_with_a_token_is_found() {
        let folder = mounted();
        let place = find(folder.path(), &[]).unwrap();
        assert_eq!(
            (place.pod(), place.namespace(), place.uid()),
            ("agent-7d9f-x2", "agents", "0b0e-1")
        );
        assert_eq!(place.server, "https://10.96.0.1:443/");
        assert_eq!(place.container, None);
        let place = find(folder.path(), &[("CONTAINER_NAME", "execpool")]).unwrap();
        assert_eq!(place.container.as_deref(), Some("execpool"));
    }

    #[test]
    fn the_namespace_is_read_beside_the_token_where_nobody_tells_it() {
        let folder = mounted();
        let place = find(folder.path(), &[("POD_NAMESPACE", "")]).unwrap();
        assert_eq!(place.namespace(), "of-file");
    }

    #[test]
    fn an_address_of_ipv6_gets_its_brackets() {
        let folder = mounted();
        let place = find(folder.path(), &[("KUBERNETES_SERVICE_HOST", "fd00::1")]).unwrap();
        assert_eq!(place.server, "https://[fd00::1]:443/");
    }

    #[test]
    fn all_that_is_missing_is_said_at_once_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let nothing: Vec<_> = FULL.iter().map(|(name, _)| (*name, "")).collect();
        let said = find(folder.path(), &nothing).unwrap_err().to_string();
        for part in FULL
            .iter()
            .map(|(name, _)| *name)
            .chain(["token", "ca.crt"])
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            said.contains("downward API") && said.contains("reactor.kubernetes: off"),
            "{said}"
        );
        assert!(said.contains("EXECPOOL_TOKEN_DIR"), "{said}");
    }

    #[test]
    fn what_is_no_name_never_becomes_part_of_a_path() {
        let folder = mounted();
        for odd in ["../nodes", "a/b", "A", "a b", ".", "a?x=1", "ä"] {
            let said = find(folder.path(), &[("POD_NAME", odd)])
                .unwrap_err()
                .to_string();
            assert!(
                said.contains("POD_NAME=") && said.contains("no name"),
                "{said}"
            );
        }
        for (host, port) in [
            ("10.0.0.1", "0"),
            ("10.0.0.1", "x"),
            ("a b", "443"),
            ("a", "70000"),
        ] {
            let odd = [
                ("KUBERNETES_SERVICE_HOST", host),
                ("KUBERNETES_SERVICE_PORT", port),
            ];
            let said = find(folder.path(), &odd).unwrap_err().to_string();
            assert!(said.contains("no address"), "{said}");
        }
    }
}
