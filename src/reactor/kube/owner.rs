//! The pod's owner: which it is, and the stamp on it that has its pods replaced.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::reactor::{Guard, Restarts};

use super::pod::Pod;
use super::time;

/// The annotation of `kubectl rollout restart`.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// When the owner was stamped last.
const LAST: &str = "execpool.dev/last-restart";

/// How often it was.
const COUNT: &str = "execpool.dev/restarts";

/// When it was within the hour, separated by commas.
const RECENT: &str = "execpool.dev/recent-restarts";

const HOUR: Duration = Duration::from_secs(3600);

/// Whom to stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `Deployment`, `StatefulSet` or `DaemonSet`.
    pub(super) kind: &'static str,
    pub(super) name: String,
}

impl Owner {
    /// From the pod's own references.
    ///
    /// # Errors
    /// A sentence that says why there is nobody to stamp.
    pub(super) fn of(pod: &Pod) -> Result<Self, String> {
        let Some((kind, name)) = &pod.owner else {
            return Err("the pod has no owner that would replace it; use restart: liveness".into());
        };
        let of = |kind, name: &str| {
            Ok(Self {
                kind,
                name: name.to_owned(),
            })
        };
        match kind.as_str() {
            "StatefulSet" => of("StatefulSet", name),
            "DaemonSet" => of("DaemonSet", name),
            "ReplicaSet" => {
                let hash = pod
                    .label("pod-template-hash")
                    .filter(|hash| !hash.is_empty());
                let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
                match deployment.filter(|name| !name.is_empty()) {
                    Some(deployment) => of("Deployment", deployment),
                    None => Err(format!(
                        "ReplicaSet {name} belongs to no Deployment; use restart: evict"
                    )),
                }
            }
            other => Err(format!(
                "the pod's owner is {other} {name}, and only a Deployment, StatefulSet or \
                 DaemonSet can be rolled out; use restart: liveness"
            )),
        }
    }

    /// Its path in the API.
    pub(super) fn path(&self, namespace: &str) -> String {
        let plural = self.kind.to_ascii_lowercase();
        format!(
            "/apis/apps/v1/namespaces/{namespace}/{plural}s/{}",
            self.name
        )
    }

    /// Whether that is what was answered, with its version: without one a stamp would be written over whatever stands
    /// there by then, also over another pod's stamp.
    pub(super) fn is(&self, answer: &Value) -> bool {
        let metadata = &answer["metadata"];
        let version = metadata["resourceVersion"].as_str();
        answer["kind"] == self.kind
            && metadata["name"] == self.name.as_str()
            && version.is_some_and(|version| !version.is_empty())
    }
}

/// What the owner remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    version: String,
    count: u64,
    /// All that are known, the last at the end.
    times: Vec<SystemTime>,
    /// When a rollout last went on that is not over: of a new image, above all.
    goes_on: Option<SystemTime>,
}

impl Memory {
    /// From the API's answer for the owner.
    ///
    /// # Errors
    /// A rollout would do nothing, or it is not the pod's owner after all.
    pub(super) fn of(answer: &Value, owner: &Owner, pod: &Pod) -> Result<Self, String> {
        fits(answer, owner, pod)?;
        let annotation = |key: &str| answer["metadata"]["annotations"][key].as_str();
        let template = &answer["spec"]["template"]["metadata"]["annotations"];
        let recent = annotation(RECENT).unwrap_or_default().split(',');
        let texts = recent
            .chain(annotation(LAST))
            .chain(template[RESTARTED].as_str());
        let mut times: Vec<_> = texts.filter_map(time::parsed).collect();
        times.sort();
        times.dedup();
        Ok(Self {
            version: answer["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
                .into(),
            count: annotation(COUNT)
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
            times,
            goes_on: goes_on(answer),
        })
    }

    /// What forbids another stamp now. Somebody's own `kubectl rollout restart` counts, too, and so does a
    /// rollout of whatever else that is not over: for as long as it goes on, and not when it is stuck.
    pub(super) fn forbids(
        &self,
        cooldown: Duration,
        per_hour: u32,
        now: SystemTime,
    ) -> Option<Guard> {
        let mut restarts = Restarts::default();
        self.times.iter().for_each(|at| restarts.add(*at));
        let by_stamps = restarts.forbids(cooldown, per_hour, now);
        let guard = by_stamps.or_else(|| {
            let mut rollout = Restarts::default();
            rollout.add(self.goes_on?);
            rollout.forbids(cooldown, u32::MAX, now)
        })?;
        Some(match guard {
            Guard::Cooldown { left } => Guard::OwnerStamped { left },
            other => other,
        })
    }

    /// The patch that stamps it, if nobody has changed it since it was read.
    pub(super) fn stamp(&self, now: SystemTime) -> Value {
        let ago = |at: &SystemTime| now.duration_since(*at).ok();
        let recent = self
            .times
            .iter()
            .filter(|at| ago(at).is_some_and(|ago| ago < HOUR));
        let recent = recent.copied().chain([now]).map(time::second);
        let recent: Vec<_> = recent.collect();
        // As many as an hour of the shortest cool-down may have; the newest count.
        let recent = recent[recent.len().saturating_sub(64)..].join(",");
        let now = time::second(now);
        json!({
            "metadata": {
                "resourceVersion": self.version,
                "annotations": {
                    (LAST): now,
                    (COUNT): self.count.saturating_add(1).to_string(),
                    (RECENT): recent,
                },
            },
            "spec": {"template": {"metadata": {"annotations": {(RESTARTED): now}}}},
        })
    }
}

/// When a Deployment last got on with replacing its pods, of which some are not replaced yet. Other owners do not
/// tell.
fn goes_on(answer: &Value) -> Option<SystemTime> {
    let status = &answer["status"];
    let many = |name: &str| status[name].as_u64().unwrap_or(0);
    let mut all = status["conditions"].as_array()?.iter();
    let progress = all.find(|one| one["type"] == "Progressing")?;
    let at = progress["lastUpdateTime"].as_str().and_then(time::parsed)?;
    (many("updatedReplicas") < many("replicas")).then_some(at)
}

/// Whether a stamp on it would replace the pod.
fn fits(answer: &Value, owner: &Owner, pod: &Pod) -> Result<(), String> {
    let Owner { kind, name } = owner;
    let wanted = answer["spec"]["selector"]["matchLabels"].as_object();
    for (key, value) in wanted.into_iter().flatten() {
        if pod.label(key) != value.as_str() {
            return Err(format!(
                "{kind} {name} does not select the pod; use restart: evict"
            ));
        }
    }
    if answer["spec"]["paused"] == true {
        return Err(format!(
            "{kind} {name} is paused; resume it: kubectl rollout resume {}/{name}",
            kind.to_ascii_lowercase()
        ));
    }
    if answer["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Err(format!(
            "{kind} {name} has the update strategy OnDelete, so that a stamp replaces no pod; use \
             restart: evict"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(owner: Option<(&str, &str)>, labels: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::of(&Value::Null, None);
        pod.owner = owner.map(|(kind, name)| (kind.to_owned(), name.to_owned()));
        pod.labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        pod
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn deployment() -> Owner {
        Owner {
            kind: "Deployment",
            name: "agent".into(),
        }
    }

    fn memory(answer: &Value) -> Memory {
        Memory::of(answer, &deployment(), &pod(None, &[])).unwrap()
    }

    /// The largest number that a count can be.
    const MOST: &str = "18446744073709551615";

    const COOLDOWN: Duration = Duration::from_secs(600);

    #[test]
    fn who_can_be_rolled_out_is_found_and_everybody_else_is_refused() {
        let hash = [("pod-template-hash", "7d9f")];
        let of = |owner, labels: &[_]| Owner::of(&pod(owner, labels)).map(|o| (o.kind, o.name));
        assert_eq!(
            of(Some(("ReplicaSet", "a-b-7d9f")), &hash),
            Ok(("Deployment", "a-b".into()))
        );
        assert_eq!(
            of(Some(("StatefulSet", "db")), &[]),
            Ok(("StatefulSet", "db".into()))
        );
        assert_eq!(
            of(Some(("DaemonSet", "log")), &[]),
            Ok(("DaemonSet", "log".into()))
        );
        for (owner, labels, part) in [
            (None, &hash[..], "no owner"),
            (Some(("ReplicaSet", "a-b")), &[][..], "no Deployment"),
            (Some(("ReplicaSet", "a-b")), &hash[..], "no Deployment"),
            (Some(("ReplicaSet", "-7d9f")), &hash[..], "no Deployment"),
            (Some(("Job", "j")), &[][..], "Job j"),
        ] {
            let said = of(owner, labels).unwrap_err();
            assert!(
                said.contains(part) && said.contains("use restart"),
                "{said}"
            );
        }
        assert_eq!(
            deployment().path("ns"),
            "/apis/apps/v1/namespaces/ns/deployments/agent"
        );
    }

    #[test]
    fn an_answer_that_is_another_object_or_has_no_version_is_not_the_owner() {
        let good = json!({
            "kind": "Deployment",
            "metadata": {"name": "agent", "resourceVersion": "7"},
        });
        assert!(deployment().is(&good));
        for (at, odd) in [
            ("/kind", json!("Status")),
            ("/kind", Value::Null),
            ("/metadata/name", json!("agents")),
            ("/metadata/resourceVersion", json!("")),
            ("/metadata/resourceVersion", json!(7)),
            ("/metadata/resourceVersion", Value::Null),
            ("/metadata", Value::Null),
        ] {
            let mut answer = good.clone();
            *answer.pointer_mut(at).unwrap() = odd;
            assert!(!deployment().is(&answer), "{answer}");
        }
        assert!(!deployment().is(&json!([])));
    }

    #[test]
    fn a_stamp_is_refused_within_the_cool_down_of_the_last() {
        let memory = memory(&memory(&Value::Null).stamp(at(0)));
        let forbids = |now| memory.forbids(COOLDOWN, 2, at(now));
        let left = |seconds| {
            Some(Guard::OwnerStamped {
                left: Duration::from_secs(seconds),
            })
        };
        assert_eq!((forbids(1), forbids(599)), (left(599), left(1)));
        assert_eq!(forbids(600), None);
    }

    #[test]
    fn the_limit_per_hour_is_kept_by_the_stamp_alone() {
        let mut answer = Value::Null;
        let mut stamped = Vec::new();
        for second in 0..20_000 {
            let memory = memory(&answer);
            if memory.forbids(COOLDOWN, 2, at(second)).is_none() {
                answer = memory.stamp(at(second));
                stamped.push(second);
            }
        }
        assert_eq!(stamped[..4], [0, 600, 3600, 4200], "{stamped:?}");
        let count = &answer["metadata"]["annotations"][COUNT];
        assert_eq!(count, &stamped.len().to_string());
    }

    #[test]
    fn somebodys_own_rollout_counts() {
        let own = json!({"spec": {"template": {"metadata": {"annotations": {
            (RESTARTED): time::second(at(0)),
        }}}}});
        let left = Duration::from_secs(540);
        let forbids = memory(&own).forbids(COOLDOWN, 2, at(60));
        assert_eq!(forbids, Some(Guard::OwnerStamped { left }));
    }

    #[test]
    fn a_rollout_of_something_else_that_is_not_over_counts_while_it_goes_on() {
        let status = |replaced| {
            json!({"status": {
                "replicas": 3, "updatedReplicas": replaced,
                "conditions": [{"type": "Progressing", "lastUpdateTime": time::second(at(0))}],
            }})
        };
        let left = Duration::from_secs(540);
        let forbids = |replaced, now| memory(&status(replaced)).forbids(COOLDOWN, 1, at(now));
        assert_eq!(forbids(1, 60), Some(Guard::OwnerStamped { left }));
        assert_eq!(forbids(3, 60), None, "it is over");
        assert_eq!(forbids(1, 601), None, "it is stuck");
    }

    #[test]
    fn a_clock_that_is_a_little_ahead_on_another_machine_opens_nothing() {
        let ahead = json!({"metadata": {"annotations": {(LAST): time::second(at(30))}}});
        assert!(memory(&ahead).forbids(COOLDOWN, 2, at(0)).is_some());
    }

    #[test]
    fn garbage_on_the_owner_is_no_memory() {
        for (count, next) in [("-1", "1".to_owned()), (MOST, MOST.to_owned())] {
            let garbage = json!({"metadata": {"annotations": {
                (LAST): "soon", (COUNT): count, (RECENT): ",,x,",
            }}});
            let memory = memory(&garbage);
            assert_eq!(memory.forbids(COOLDOWN, 2, at(0)), None);
            assert_eq!(memory.stamp(at(0))["metadata"]["annotations"][COUNT], next);
        }
    }

    #[test]
    fn what_a_stamp_would_not_replace_is_refused() {
        let of = |answer: &Value| {
            let pod = pod(None, &[("app", "agent")]);
            Memory::of(answer, &deployment(), &pod)
                .map(drop)
                .unwrap_err()
        };
        let selector = |app| json!({"spec": {"selector": {"matchLabels": {"app": app}}}});
        assert!(of(&selector("other")).contains("does not select"));
        assert!(
            Memory::of(
                &selector("agent"),
                &deployment(),
                &pod(None, &[("app", "agent")])
            )
            .is_ok()
        );
        assert!(of(&json!({"spec": {"paused": true}})).contains("kubectl rollout resume"));
        let on_delete = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        assert!(of(&on_delete).contains("OnDelete"));
    }
}
