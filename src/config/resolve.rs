//! From what was said to a configuration that is complete and checked.

use super::layers::{Layer, Sources};
use super::target::{self, Fallbacks, Parsed};
use super::url::redact;
use super::value::Value;
use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A configuration, where it came from, and what is odd about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Each knob's effective value, and who said it.
    pub origins: Origins,
    /// What is allowed and yet likely a mistake; whole sentences.
    pub warnings: Vec<String>,
    /// The file that was read; none: there is none.
    pub file: Option<PathBuf>,
    /// What was said of the knobs that only a restart changes, as it was written.
    restart: BTreeMap<String, (String, Origin)>,
}

impl Loaded {
    /// The value of a knob that only a restart changes, as it was written.
    pub(super) fn raw(&self, knob: &Knob) -> &str {
        let said = self.restart.get(knob.path);
        said.map_or(knob.default, |(text, _)| text.as_str())
    }
}

/// What runs and what is to run.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What the sources say: what would run after a restart.
    pub wanted: Loaded,
    /// The same with what only a restart changes as it is: what runs from now on.
    pub next: Loaded,
}

/// One knob as it came out. The value contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The knob, such as `budget.size` or `upstreams[0].url`.
    pub path: String,
    /// Its value as one would write it; empty where there is none.
    pub value: String,
    /// Who said it.
    pub origin: Origin,
}

/// Every knob as it came out, in the order of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<Effective>);

impl Origins {
    /// The knob of this path.
    pub fn get(&self, path: &str) -> Option<&Effective> {
        self.0.iter().find(|effective| effective.path == path)
    }
}

/// Reads all sources, checks everything.
///
/// # Errors
/// All that is wrong, not only the first.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
    resolve(Layer::read(sources), sources)
}

/// The same beside a configuration that runs: what only a restart changes stays as it is there.
///
/// # Errors
/// All that is wrong with the sources, or would be with them after a restart.
pub fn reload(sources: &Sources<'_>, running: &Loaded) -> Result<Reloaded, Vec<ConfigError>> {
    let wanted = load(sources)?;
    let mut layer = Layer::read(sources);
    for knob in KNOBS.iter().filter(|knob| knob.reload == Reload::Restart) {
        if running.raw(knob) == wanted.raw(knob) {
            continue;
        }
        match running.restart.get(knob.path) {
            Some(said) => layer.said.insert(knob.path.to_owned(), said.clone()),
            None => layer.said.remove(knob.path),
        };
    }
    let next = resolve(layer, sources)?;
    Ok(Reloaded { wanted, next })
}

fn resolve(mut layer: Layer, sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let url = sources
        .env
        .iter()
        .rev()
        .find(|(name, value)| name == "DATABASE_URL" && !value.trim().is_empty());
    if let (0, Some((name, value))) = (layer.upstreams, url) {
        layer.set("upstreams[0].url", value, Origin::Env(name.clone()));
    }
    let mut resolver = Resolver {
        layer,
        origins: Origins::default(),
        fallbacks: Fallbacks::read(&sources.env),
    };
    let config = resolver.config();
    let Resolver {
        mut layer, origins, ..
    } = resolver;
    super::check::check(&config, &mut layer);
    let only_restart = |path: &str| {
        let knob = knobs::find(path);
        knob.is_some_and(|knob| knob.reload == Reload::Restart)
    };
    layer.said.retain(|path, _| only_restart(path));
    match layer.errors.is_empty() {
        true => Ok(Loaded {
            config,
            origins,
            warnings: layer.warnings,
            file: sources.file.map(|(path, _)| path.to_owned()),
            restart: layer.said,
        }),
        false => Err(layer.errors),
    }
}

struct Resolver {
    layer: Layer,
    origins: Origins,
    fallbacks: Fallbacks,
}

impl Resolver {
    /// The value of a knob; one that is wrong is noted and its default stands in. None: there is no default either.
    fn value(&mut self, path: &str) -> Option<Value> {
        let knob = knobs::find(path)?;
        let global = path
            .split_once("].pool.")
            .map(|(_, name)| format!("pool.{name}"));
        let own = self.layer.said.get(path).cloned();
        let said = own
            .clone()
            .or_else(|| self.layer.said.get(global.as_ref()?).cloned());
        let (text, origin) = said.unwrap_or_else(|| (knob.default.to_owned(), Origin::Default));
        self.note(path, &knob.kind.shown(&text), origin.clone());
        let parsed = knob.kind.parse(&text);
        // What is inherited has been complained about where it stands.
        if parsed.is_none() && origin != Origin::Default && (own.is_some() || global.is_none()) {
            self.layer
                .errors
                .push(refusal(path, &text, knob.kind, origin));
        }
        parsed.or_else(|| knob.kind.parse(knob.default))
    }

    fn note(&mut self, path: &str, value: &str, origin: Origin) {
        let effective = Effective {
            path: path.to_owned(),
            value: value.to_owned(),
            origin,
        };
        match self.origins.0.iter_mut().find(|known| known.path == path) {
            Some(known) => *known = effective,
            None => self.origins.0.push(effective),
        }
    }

    fn switch(&mut self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Switch(true)))
    }

    fn count(&mut self, path: &str) -> u32 {
        match self.value(path) {
            Some(Value::Count(count)) => count,
            _ => 0,
        }
    }

    fn time_or_off(&mut self, path: &str) -> Option<Duration> {
        match self.value(path) {
            Some(Value::Time(time)) => time,
            _ => None,
        }
    }

    fn time(&mut self, path: &str) -> Duration {
        self.time_or_off(path).unwrap_or_default()
    }

    fn text(&mut self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn words(&mut self, path: &str) -> Option<Vec<String>> {
        match self.value(path) {
            Some(Value::Words(words)) => Some(words),
            _ => None,
        }
    }

    fn uids(&mut self, path: &str) -> Option<Vec<u32>> {
        match self.value(path) {
            Some(Value::Uids(uids)) => uids,
            _ => None,
        }
    }

    fn config(&mut self) -> Config {
        Config {
            listen: self.listen(),
            control: Control {
                allow_uids: self.uids("control.allow_uids"),
                admin: self.switch("control.admin"),
            },
            budget: Budget {
                size: self.count("budget.size"),
                overflow: self.count("budget.overflow"),
                warm: self.count("budget.warm"),
            },
            pool: self.pool(""),
            execution: self.execution(),
            hold: Hold {
                grace: self.time("hold.grace"),
            },
            session: Session {
                idle_in_transaction: self.limit("idle_in_transaction"),
                transaction: self.limit("transaction"),
                leak_after: self.time_or_off("session.leak_after"),
                reclaim_leaks: self.switch("session.reclaim_leaks"),
            },
            cleanup: Cleanup {
                idle_in_transaction: self.time("cleanup.idle_in_transaction"),
            },
            exhaustion: Exhaustion {
                warning: match self.value("exhaustion.warning") {
                    Some(Value::Share(share)) => share,
                    _ => Share { thousandths: 1000 },
                },
                wait: self.time("exhaustion.wait"),
                after: self.time("exhaustion.after"),
                sustained_after: self.time("exhaustion.sustained_after"),
            },
            reactor: self.reactor(),
            maintenance: Maintenance {
                interval: self.time_or_off("maintenance.interval"),
            },
            telemetry: Telemetry {
                listen: match self.value("telemetry.listen") {
                    Some(Value::Address(address)) => address,
                    _ => None,
                },
                status_log: self.time_or_off("telemetry.status_log"),
                top_executions: self.count("telemetry.top_executions"),
                traces: self.switch("telemetry.traces"),
            },
            errors: Errors {
                holders: match self.text("errors.holders").as_deref() {
                    Some("ids") => Holders::Ids,
                    Some("none") => Holders::None,
                    _ => Holders::Full,
                },
            },
            shutdown: Shutdown {
                grace: self.time("shutdown.grace"),
                mode: match self.text("shutdown.mode").as_deref() {
                    Some("plain") => ShutdownMode::Plain,
                    _ => ShutdownMode::Sidecar,
                },
            },
            log: Log {
                level: self.text("log.level").unwrap_or_default(),
                format: match self.text("log.format").as_deref() {
                    Some("json") => LogFormat::Json,
                    Some("text") => LogFormat::Text,
                    _ => LogFormat::Auto,
                },
            },
            upstreams: self.upstreams(),
        }
    }

    fn listen(&mut self) -> Listen {
        Listen {
            dir: self.text("listen.dir").unwrap_or_default().into(),
            // The table's range is that of the type.
            port: u16::try_from(self.count("listen.port")).unwrap_or_default(),
            mode: self.count("listen.mode"),
            group: self.text("listen.group"),
            allow_uids: self.uids("listen.allow_uids"),
            max_sessions: self.count("listen.max_sessions"),
            tcp: self.tcp(),
        }
    }

    fn reactor(&mut self) -> Reactor {
        let restart = self.text("reactor.restart");
        let same = |way: &Restart| Some(way.as_str()) == restart.as_deref();
        Reactor {
            kubernetes: match self.text("reactor.kubernetes").as_deref() {
                Some("on") => KubernetesUse::On,
                Some("off") => KubernetesUse::Off,
                _ => KubernetesUse::Auto,
            },
            condition: self.switch("reactor.condition"),
            cleanup: self.switch("reactor.cleanup"),
            restart: Restart::ALL.into_iter().find(same),
            restart_after: self.time("reactor.restart_after"),
            cooldown: self.time("reactor.cooldown"),
            max_restarts_per_hour: self.count("reactor.max_restarts_per_hour"),
            app_probe: match self.value("reactor.app_probe") {
                Some(Value::Probe(probe)) => Some(probe),
                _ => None,
            },
            dry_run: self.switch("reactor.dry_run"),
        }
    }

    /// TCP is served with a password or not at all.
    fn tcp(&mut self) -> Option<Tcp> {
        let at = match self.value("listen.tcp") {
            Some(Value::Loopback(at)) => at,
            _ => None,
        };
        match (at, self.text("listen.tcp_password_file")) {
            (Some(at), Some(file)) => Some(Tcp {
                at,
                password_file: file.into(),
            }),
            (Some(at), None) => {
                // A path that is none has been complained about.
                if !self.layer.said.contains_key("listen.tcp_password_file") {
                    self.layer.errors.push(ConfigError::NoTcpPassword { at });
                }
                None
            }
            (None, Some(_)) => {
                self.layer
                    .warnings
                    .push("listen.tcp_password_file is not read: listen.tcp is off".to_owned());
                None
            }
            (None, None) => None,
        }
    }

    fn execution(&mut self) -> Execution {
        Execution {
            max_duration: self.time_or_off("execution.max_duration"),
            idle_timeout: self.time("execution.idle_timeout"),
            tombstone: self.time("execution.tombstone"),
            untagged: match self.text("execution.untagged").as_deref() {
                Some("session") => Untagged::Session,
                Some("reject") => Untagged::Reject,
                _ => Untagged::Shared,
            },
            grace: self.time("execution.grace"),
        }
    }

    fn limit(&mut self, name: &str) -> Limit {
        Limit {
            notice: self.time_or_off(&format!("session.{name}.notice")),
            end: self.time_or_off(&format!("session.{name}.end")),
        }
    }

    /// `before` is empty or `upstreams[0].`.
    fn pool(&mut self, before: &str) -> Pool {
        let at = |name: &str| format!("{before}pool.{name}");
        let pool = Pool {
            size: self.count(&at("size")),
            overflow: self.count(&at("overflow")),
            timeout: self.time(&at("timeout")),
            notice_after: self.time(&at("notice_after")),
            recycle: self.time(&at("recycle")),
            idle_timeout: self.time(&at("idle_timeout")),
            pre_ping: self.switch(&at("pre_ping")),
            ping_after: self.time(&at("ping_after")),
            mode: PoolMode::Session,
            reset: self.text(&at("reset")).unwrap_or_default(),
        };
        // Its only value is checked and noted; it chooses nothing.
        self.value(&at("mode"));
        pool
    }

    fn upstreams(&mut self) -> Vec<Upstream> {
        if self.layer.upstreams == 0 {
            self.layer.errors.push(ConfigError::NoUpstream);
        }
        (0..self.layer.upstreams)
            .filter_map(|index| self.upstream(&format!("upstreams[{index}].")))
            .collect()
    }

    fn upstream(&mut self, at: &str) -> Option<Upstream> {
        let name = self.text(&format!("{at}name"));
        let parsed = self.target(at);
        let pool = self.pool(at);
        let (any_user, timeout, keepalive) = (
            format!("{at}any_user"),
            format!("{at}connect_timeout"),
            format!("{at}keepalive"),
        );
        let any_user = self.switch(&any_user);
        let connect_timeout = self.time_or_url(
            &timeout,
            parsed.as_ref().and_then(|parsed| parsed.connect_timeout),
        );
        let keepalive = self.time_or_url(
            &keepalive,
            parsed.as_ref().and_then(|parsed| parsed.keepalive),
        );
        let kind = match self.text(&format!("{at}kind")).as_deref() {
            Some("pooler") => UpstreamKind::Pooler,
            _ => UpstreamKind::Postgres,
        };
        let target = parsed?.target;
        let name = name.unwrap_or_else(|| {
            self.note(&format!("{at}name"), &target.database, Origin::Url);
            target.database.clone()
        });
        Some(Upstream {
            name,
            target,
            kind,
            any_user,
            connect_timeout,
            keepalive,
            pool,
        })
    }

    /// The knob where it is set, else what the URL says, else the default.
    fn time_or_url(&mut self, path: &str, url: Option<Duration>) -> Duration {
        let own = self.time(path);
        match url {
            Some(time) if !self.layer.said.contains_key(path) => {
                self.note(path, &format!("{}s", time.as_secs()), Origin::Url);
                time
            }
            _ => own,
        }
    }

    fn target(&mut self, at: &str) -> Option<Parsed> {
        let key = format!("{at}url");
        let Some(url) = self.text(&key) else {
            if !self.layer.said.contains_key(&key) {
                self.layer.errors.push(ConfigError::NoUrl { key });
            }
            return None;
        };
        let mut parsed = match target::parse(&url, &self.fallbacks) {
            Ok(parsed) => parsed,
            Err(problem) => {
                let origin = self
                    .layer
                    .said
                    .get(&key)
                    .map_or(Origin::Default, |(_, origin)| origin.clone());
                self.layer.errors.push(ConfigError::Url {
                    key,
                    problem,
                    url: redact(&url),
                    origin,
                });
                return None;
            }
        };
        let given = std::mem::replace(&mut parsed.target.password, PasswordSource::None);
        parsed.target.password = self.password(at, given)?;
        Some(parsed)
    }

    /// Where the password comes from: one place, or the environment. `url` is what the URL says.
    fn password(&mut self, at: &str, url: PasswordSource) -> Option<PasswordSource> {
        let (file, command) = (
            format!("{at}password_file"),
            format!("{at}password_command"),
        );
        let places = [
            ("url", (url != PasswordSource::None).then_some(url)),
            (
                "password_file",
                self.text(&file)
                    .map(|path| PasswordSource::File(path.into())),
            ),
            (
                "password_command",
                self.words(&command).map(PasswordSource::Command),
            ),
        ];
        let mut named = places
            .into_iter()
            .filter_map(|(name, source)| Some((name, source?)));
        let (first, second) = (named.next(), named.next());
        if let (Some((other, _)), Some((name, _))) = (&first, second) {
            let key = format!("{at}{name}");
            self.layer
                .errors
                .push(ConfigError::TwoPasswords { key, other });
            return None;
        }
        let (source, origin) = match (first, self.fallbacks.password.clone()) {
            (Some((_, source)), _) => (source, Origin::Url),
            (None, Some(secret)) => (
                PasswordSource::Given(secret),
                Origin::Env("PGPASSWORD".into()),
            ),
            (None, None) => (PasswordSource::None, Origin::Default),
        };
        if let PasswordSource::Given(_) = source {
            self.note(&format!("{at}password"), "given, not shown", origin);
        }
        Some(source)
    }
}

fn refusal(key: &str, text: &str, kind: Kind, origin: Origin) -> ConfigError {
    let key = key.to_owned();
    if key.ends_with("pool.mode") && text == "transaction" {
        return ConfigError::Transaction { key, origin };
    }
    if key.ends_with(".overflow") && text == "-1" {
        return ConfigError::Unlimited { key, origin };
    }
    // Whoever puts a password where its file belongs must not read it in a log.
    let value = match key.ends_with("password_file") || kind == Kind::Command {
        true => "***".to_owned(),
        false => redact(text),
    };
    let allowed = match value::switch_for(text) {
        Some(word) if kind == Kind::Switch => format!("{}; write {word}", kind.allowed()),
        _ => kind.allowed(),
    };
    ConfigError::Invalid {
        key,
        value,
        allowed,
        origin,
    }
}
