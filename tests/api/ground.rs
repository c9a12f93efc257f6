//! What each test stands on: a namespace of the shared API server, a pod in it with its service
//! account and token, and the reactor's hand in this process, as if it were in that pod.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use execpool::budget::State;
use execpool::metrics::Counters;
use execpool::metrics::words::{Action, Outcome};
use execpool::reactor::{
    Circumstances, History, Holder, Kubernetes, Limits, NotDone, Place, Policy, Report, Snapshot,
    decide,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::admin::Admin;
use crate::front::Front;
use crate::log::Log;
use crate::support::cluster::Cluster;
use crate::support::eventually;

pub(crate) use crate::support::SOON;

/// The rights that the reactor may need, as the Role gives them.
pub(crate) const RIGHTS: [(&str, &str, &[&str]); 7] = [
    ("", "pods", &["get", "patch"]),
    ("", "pods/status", &["patch"]),
    ("", "pods/eviction", &["create"]),
    ("events.k8s.io", "events", &["create", "patch"]),
    ("apps", "deployments", &["get", "patch"]),
    ("apps", "statefulsets", &["get", "patch"]),
    ("apps", "daemonsets", &["get", "patch"]),
];

/// One for the program; its watchdog ends it.
struct Shared {
    cluster: Cluster,
    token: String,
}

fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    let start = || {
        let cluster = Cluster::api()?;
        cluster.kubectl(&[
            "create",
            "serviceaccount",
            "root",
            "--namespace=kube-system",
        ]);
        let whom = "--serviceaccount=kube-system:root";
        let role = "--clusterrole=cluster-admin";
        cluster.kubectl(&["create", "clusterrolebinding", "root", role, whom]);
        let token = cluster.kubectl(&["create", "token", "root", "--namespace=kube-system"]);
        let token = token.trim().to_owned();
        Some(Shared { cluster, token })
    };
    SHARED.get_or_init(start).as_ref()
}

/// Who takes the API server away is alone.
static TURN: RwLock<()> = RwLock::const_new(());

/// Held for what it keeps away.
#[allow(dead_code, reason = "they are held, and not looked at")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

pub(crate) struct Ground {
    pub(crate) cluster: &'static Cluster,
    pub(crate) admin: Admin,
    pub(crate) namespace: String,
    pub(crate) log: Log,
    _turn: Turn,
}

impl Ground {
    /// A namespace with a service account that has all rights; `None`: the machine can't.
    pub(crate) async fn new(namespace: &str) -> Option<Self> {
        let shared = shared()?;
        Some(Self::made(shared, namespace, Turn::Shared(TURN.read().await)).await)
    }

    /// The same while nobody else uses the API server.
    pub(crate) async fn alone(namespace: &str) -> Option<Self> {
        let shared = shared()?;
        Some(Self::made(shared, namespace, Turn::Alone(TURN.write().await)).await)
    }

    async fn made(shared: &'static Shared, namespace: &str, turn: Turn) -> Self {
        let cluster = &shared.cluster;
        let admin = Admin::new(cluster, &shared.token);
        admin
            .create(
                "/api/v1/namespaces",
                &json!({"metadata": {"name": namespace}}),
            )
            .await;
        let ground = Self {
            cluster,
            admin,
            namespace: namespace.to_owned(),
            log: Log::begin(),
            _turn: turn,
        };
        let account = json!({"metadata": {"name": "agent"}});
        ground
            .admin
            .create(&ground.core("serviceaccounts"), &account)
            .await;
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let mark = mark();
        ground
            .admin
            .create(&format!("{rbac}/roles"), &role(&RIGHTS, &mark))
            .await;
        let binding = json!({
            "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": namespace}],
        });
        ground
            .admin
            .create(&format!("{rbac}/rolebindings"), &binding)
            .await;
        ground.goes_by(&mark).await;
        ground
    }

    /// Waits until the API server goes by the role of this mark: it learns of a role a moment after
    /// it was written.
    async fn goes_by(&self, mark: &str) {
        let namespace = &self.namespace;
        let user = format!("system:serviceaccount:{namespace}:agent");
        let review = json!({"spec": {"user": user, "resourceAttributes": {
            "namespace": namespace, "verb": "get", "group": "", "resource": mark,
        }}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        eventually(SOON, "the API server goes by these rights", async || {
            let review = self.admin.create(path, &review).await;
            match review["status"]["allowed"] == true {
                true => Ok(()),
                false => Err(review),
            }
        })
        .await;
    }

    /// The path of objects of the core.
    pub(crate) fn core(&self, what: &str) -> String {
        format!("/api/v1/namespaces/{}/{what}", self.namespace)
    }

    /// The path of apps.
    pub(crate) fn apps(&self, what: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{what}", self.namespace)
    }

    /// Gives the service account these rights alone, from the return on.
    pub(crate) async fn allow(&self, rights: &[(&str, &str, &[&str])]) {
        let path = format!(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/agent",
            self.namespace
        );
        let mark = mark();
        self.admin
            .merge(&path, &json!({"rules": role(rights, &mark)["rules"]}))
            .await;
        self.goes_by(&mark).await;
    }

    /// Gives it all rights but this one, which is there: resource and verb.
    pub(crate) async fn forbid(&self, resource: &str, verb: &str) {
        let mut rights = RIGHTS.to_vec();
        let mut taken = false;
        let mut kept = Vec::new();
        for right in &mut rights {
            let verbs = right.2.iter().copied();
            let left: Vec<&str> = match right.1 == resource {
                true => verbs.filter(|known| *known != verb).collect(),
                false => verbs.collect(),
            };
            taken |= left.len() < right.2.len();
            kept.push((right.0, right.1, left));
        }
        assert!(taken, "{verb} {resource} is a right");
        kept.retain(|(_, _, verbs)| !verbs.is_empty());
        let kept: Vec<_> = kept
            .iter()
            .map(|(group, what, verbs)| (*group, *what, &verbs[..]))
            .collect();
        self.allow(&kept).await;
    }

    /// A pod by itself, which nobody runs.
    pub(crate) async fn pod(&self, name: &str) -> Pod<'_> {
        let made = self.admin.create(&self.core("pods"), &pod(name)).await;
        self.pod_of(&made).await
    }

    /// The pod that an owner's controller makes.
    pub(crate) async fn pod_by(&self, owner: &str) -> Pod<'_> {
        let made = eventually(SOON, "the owner has a pod", async || {
            let all = self.pods().await;
            let is_its = |pod: &&Value| {
                let name = pod["metadata"]["ownerReferences"][0]["name"].as_str();
                let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
                name.is_some_and(|name| name.starts_with(owner)) && !is_leaving
            };
            let found = all.iter().find(is_its).cloned();
            tokio::time::sleep(Duration::from_millis(50)).await;
            found.ok_or(all.len())
        });
        let made = made.await;
        self.pod_of(&made).await
    }

    pub(crate) async fn pods(&self) -> Vec<Value> {
        let all = self.admin.get(&self.core("pods")).await;
        all["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn pod_of(&self, made: &Value) -> Pod<'_> {
        let text = |field: &str| made["metadata"][field].as_str().unwrap().to_owned();
        let pod = Pod {
            ground: self,
            name: text("name"),
            uid: text("uid"),
            mount: TempDir::new().unwrap(),
            counters: Arc::default(),
        };
        let authority = fs::read(self.cluster.state().join("pki/ca.crt")).unwrap();
        fs::write(pod.mount.path().join("ca.crt"), authority).unwrap();
        fs::write(pod.mount.path().join("namespace"), &self.namespace).unwrap();
        pod.renew(&self.token(Some((&pod.name, &pod.uid))).await);
        pod
    }

    /// A token of the service account, as the kubelet would ask for it: bound to the pod, as long
    /// as that is there.
    pub(crate) async fn token(&self, pod: Option<(&str, &str)>) -> String {
        let path = self.core("serviceaccounts/agent/token");
        let wish = json!({"spec": {"expirationSeconds": 600}});
        let mut bound = wish.clone();
        if let Some((name, uid)) = pod {
            bound["spec"]["boundObjectRef"] =
                json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
        }
        let kind = "application/json";
        let answer = match self.admin.ask("POST", &path, kind, &bound).await {
            // Its owner has replaced it meanwhile.
            Err((404 | 409, _)) => self.admin.create(&path, &wish).await,
            answer => answer.unwrap(),
        };
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// The events about a pod, by reason.
    pub(crate) async fn events(&self, pod: &Pod<'_>, reason: &str) -> Vec<Value> {
        let path = format!(
            "/apis/events.k8s.io/v1/namespaces/{}/events",
            self.namespace
        );
        let all = self.admin.get(&path).await;
        let all = all["items"].as_array().cloned().unwrap_or_default();
        let about = |one: &Value| one["regarding"]["uid"] == pod.uid && one["reason"] == reason;
        all.into_iter().filter(about).collect()
    }
}

/// What no other role lets one get.
fn mark() -> String {
    static MARKS: AtomicUsize = AtomicUsize::new(0);
    format!("marks{}", MARKS.fetch_add(1, Relaxed))
}

fn role(rights: &[(&str, &str, &[&str])], mark: &str) -> Value {
    let marked = ("", mark, &["get"][..]);
    let rules: Vec<_> = rights
        .iter()
        .chain([&marked])
        .map(|(group, what, verbs)| json!({"apiGroups": [group], "resources": [what], "verbs": verbs}))
        .collect();
    json!({"metadata": {"name": "agent"}, "rules": rules})
}

/// A pod as users have it: an app and the sidecar.
pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "agent"}}, "spec": pod_spec()})
}

pub(crate) fn pod_spec() -> Value {
    json!({
        "serviceAccountName": "agent",
        "terminationGracePeriodSeconds": 0,
        "initContainers": [
            {"name": "execpool", "image": "localhost/none", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "app", "image": "localhost/none"}],
    })
}

/// A pod, and what is mounted into its sidecar.
pub(crate) struct Pod<'a> {
    ground: &'a Ground,
    pub(crate) name: String,
    pub(crate) uid: String,
    mount: TempDir,
    pub(crate) counters: Arc<Counters>,
}

impl Pod<'_> {
    /// What the sidecar finds around it; the API at that address.
    pub(crate) fn place_at(&self, address: (&str, u16)) -> Place {
        let found = Place::find(|name| {
            Some(match name {
                "POD_NAME" => self.name.clone(),
                "POD_UID" => self.uid.clone(),
                "EXECPOOL_TOKEN_DIR" => self.mount.path().display().to_string(),
                "KUBERNETES_SERVICE_HOST" => address.0.to_owned(),
                "KUBERNETES_SERVICE_PORT" => address.1.to_string(),
                "CONTAINER_NAME" => "execpool".to_owned(),
                _ => return None,
            })
        });
        found.unwrap()
    }

    pub(crate) fn place(&self) -> Place {
        self.place_at(self.ground.cluster.api_address())
    }

    /// The reactor's hand in it.
    pub(crate) fn start(&self) -> Kubernetes {
        Kubernetes::start(self.place(), Arc::clone(&self.counters))
    }

    /// The same with a relay before the API server.
    pub(crate) async fn start_behind(&self) -> (Kubernetes, Front) {
        let front = Front::start(self.ground.cluster).await;
        let mut trusted = fs::read_to_string(self.mount.path().join("ca.crt")).unwrap();
        trusted += front.authority();
        fs::write(self.mount.path().join("ca.crt"), trusted).unwrap();
        let place = self.place_at(("127.0.0.1", front.port()));
        (Kubernetes::start(place, Arc::clone(&self.counters)), front)
    }

    /// Puts another token where the kubelet would.
    pub(crate) fn renew(&self, token: &str) {
        let next = self.mount.path().join("next");
        fs::write(&next, token).unwrap();
        fs::rename(next, self.mount.path().join("token")).unwrap();
    }

    pub(crate) fn mount(&self) -> &Path {
        self.mount.path()
    }

    pub(crate) fn path(&self) -> String {
        self.ground.core(&format!("pods/{}", self.name))
    }

    /// As the API has it.
    pub(crate) async fn read(&self) -> Value {
        self.ground.admin.get(&self.path()).await
    }

    pub(crate) async fn annotation(&self, key: &str) -> Value {
        self.read().await["metadata"]["annotations"][format!("execpool.dev/{key}")].clone()
    }

    /// Waits until an annotation has this value.
    #[track_caller]
    pub(crate) fn comes_to(&self, key: &str, value: &str) -> impl Future<Output = ()> {
        self.comes_to_within(key, value, SOON)
    }

    #[track_caller]
    pub(crate) fn comes_to_within(
        &self,
        key: &str,
        value: &str,
        within: Duration,
    ) -> impl Future<Output = ()> {
        let claim = format!("execpool.dev/{key} is {value}");
        let caller = std::panic::Location::caller();
        async move {
            let claim = format!("{caller}: {claim}");
            eventually(within, &claim, async || {
                let known = self.annotation(key).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if known == value { Ok(()) } else { Err(known) }
            })
            .await;
        }
    }

    /// Its condition, where it has ours.
    pub(crate) async fn condition(&self) -> Value {
        let pod = self.read().await;
        let all = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_ours = |one: &Value| one["type"] == "execpool.dev/PoolAvailable";
        all.into_iter().find(is_ours).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn condition_is(&self, status: &str, reason: &str) -> impl Future<Output = Value> {
        let claim = format!("{}: {status} {reason}", std::panic::Location::caller());
        async move {
            eventually(SOON, &claim, async || {
                let known = self.condition().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                let is_so = known["status"] == status && known["reason"] == reason;
                if is_so { Ok(known) } else { Err(known) }
            })
            .await
        }
    }

    /// Running and Ready, as its kubelet would say.
    pub(crate) async fn is_ready(&self) {
        let since = "2026-01-01T00:00:00Z";
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
        let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
        let path = self.path() + "/status";
        self.ground
            .admin
            .patch(&path, "application/strategic-merge-patch+json", &status)
            .await;
    }

    pub(crate) fn acted(&self, action: Action, outcome: Outcome) -> u64 {
        self.counters.actions(action, outcome)
    }
}

/// Of a restart that is still to be done.
pub(crate) async fn is_due() -> Result<(), NotDone> {
    Ok(())
}

pub(crate) const LIMITS: Limits = Limits {
    cooldown: Duration::from_secs(600),
    per_hour: 2,
};

/// A report as decisions make it: of this state, with so many in use. The database answers.
pub(crate) fn report(state: State, used: usize) -> Report {
    report_where(state, used, |_| {})
}

/// The same in other circumstances.
pub(crate) fn report_where(state: State, used: usize, change: impl Fn(&mut Snapshot)) -> Report {
    let second = Duration::from_secs(1);
    let policy = Policy {
        warning: 800,
        hold: second,
        wait: Duration::from_secs(5),
        after: second,
        sustained_after: second * 2,
        cleanup: false,
        restart: None,
        restart_after: second,
        jitter: Duration::ZERO,
        cooldown: LIMITS.cooldown,
        max_restarts_per_hour: LIMITS.per_hour,
        dry_run: false,
    };
    let start = Instant::now();
    let mut history = History::new(start);
    let is_waited_for = state >= State::Exhausted;
    for look in 1..100 {
        let now = start + second * look;
        let mut snapshot = Snapshot {
            used,
            limit: 30,
            waiting: if is_waited_for { 5 } else { 0 },
            oldest_wait: if is_waited_for {
                second * 10
            } else {
                Duration::ZERO
            },
            oldest_of_all: if is_waited_for {
                second * 10
            } else {
                Duration::ZERO
            },
            holder: Some(Holder {
                execution: "run-7".to_owned(),
                caller: Some("agent.py:12 run".to_owned()),
                held: Duration::from_secs(90),
            }),
            circumstances: Circumstances {
                time: SystemTime::now(),
                ..Circumstances::default()
            },
            ..Snapshot::default()
        };
        change(&mut snapshot);
        let actions = decide(&history, &snapshot, &policy, now);
        history.record(&snapshot, &policy, now, &actions);
        let known = history.exhaustion().state;
        if known == state && (state != State::Healthy || look > 2) {
            return Report::of(&history, &snapshot, &policy);
        }
    }
    panic!("it never comes to {}", state.as_str());
}
