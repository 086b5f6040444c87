// What a path's name says about it: whether it is merged at all, line by line, together with others, or never.
// Paths are inner names (latin1) relative to the root of the union. A base need not be a whole system: it may
// be an /etc or a /var alone, so names of a directory also count where that directory is the root.
import { baseName, parentPath } from '../lib/names.ts';

/** Text above this is not merged, and no ancestor is kept of it. */
export const MAX_TEXT = 4 * 1024 * 1024;

export type SetKind = 'accounts' | 'database' | 'git';

/** Files that are only right together (versioning.md, Sets). */
export interface PathSet {
  /** Equal for all members; a path. */
  id: string;
  kind: SetKind;
  /** Paths of the members, whether they exist or not; null: everything beneath `id`. */
  members: readonly string[] | null;
}

export interface Policy {
  inScope: boolean;
  /** Why the overlay's is always the right one; null: it is not on the list. */
  ignored: string | null;
  /** The command that makes the file anew; null: not generated. */
  generated: string | null;
  record: boolean;
  /** A line merge of it can be trusted. */
  lines: boolean;
  set: PathSet | null;
}

const scopes = ['etc', 'usr/local', 'root', 'home', 'srv'];

/** `osTree`: the base has an os-release. Any other base is in scope everywhere. */
export function scopeOf(path: string, osTree: boolean): 'in' | 'out' {
  if (!osTree) return 'in';
  return scopes.some((dir) => path === dir || path.startsWith(`${dir}/`)) ? 'in' : 'out';
}

const accountFiles = ['passwd', 'shadow', 'group', 'gshadow', 'subuid', 'subgid'];

/** In a directory that is, or may be, an /etc. */
function inEtc(path: string): boolean {
  const dir = parentPath(path);
  return dir === '' || baseName(dir) === 'etc';
}

interface Rule {
  match: RegExp;
  says: string;
}

/**
 * What the first rule says that matches a path. Each open asks, and as a rule none does: so all are asked by two
 * expressions, one of them for what can be told at the path's first letter.
 */
function anyOf(rules: readonly Rule[]): (path: string) => string | null {
  const sources = rules.map(({ match }) => match.source);
  const together = (list: string[]) => (list.length === 0 ? /(?!)/ : new RegExp(list.join('|')));
  const anchored = together(sources.filter((source) => source.startsWith('^')));
  const floating = together(sources.filter((source) => !source.startsWith('^')));
  return (path) => {
    if (!anchored.test(path) && !floating.test(path)) return null;
    return rules.find(({ match }) => match.test(path))?.says ?? null;
  };
}

/** A path of the root, or, if the base is that first directory itself, without it. */
function under(dir: string, rest: string): RegExp {
  return new RegExp(`^(?:${dir}/)?${rest}$`);
}

// The guest's own, whatever the base does: two guests must not share them, or both sides write them all the time
// and neither is wrong. Never in conflict, never dropped, so that a base cannot push its own through.
const ignoreRules: Rule[] = [
  // Identity. A machine that gets another's is two machines with one name, address or key.
  { match: under('etc', 'machine-id'), says: 'identity of the machine' },
  { match: under('var', 'lib/dbus/machine-id'), says: 'identity of the machine' },
  { match: under('etc', 'ssh/ssh_host_[^/]+'), says: 'host key' },
  { match: under('etc', 'dropbear/dropbear_[^/]*_host_key'), says: 'host key' },
  { match: under('etc', 'hostname'), says: 'name of the machine' },
  // Written by DHCP clients and network managers, for the network that the guest is in.
  { match: under('etc', 'resolv\\.conf'), says: 'resolver of the network it is in' },
  // The same seed twice is the same "random" numbers twice.
  { match: under('var', 'lib/systemd/random-seed'), says: 'random seed' },
  { match: under('var', 'lib/(?:urandom/)?random-seed'), says: 'random seed' },
  { match: under('var', 'lib/systemd/credential\\.secret'), says: 'secret of the machine' },
  // Copies of the version before that tools make for themselves; merging them would make them nobody's.
  { match: /(?:^|\/)(?:passwd|shadow|group|gshadow|subuid|subgid)-$/, says: 'backup of an account file' },
  { match: /^var\/backups\/.+$/, says: 'backup' },
  // Logs, and what shells and editors log.
  { match: under('var', 'log/.+'), says: 'log' },
  { match: /\.log(?:\.\d+)?(?:\.(?:gz|xz|zst|bz2))?$/, says: 'log' },
  {
    match: /(?:^|\/)\.(?:(?:bash|zsh|sh|python|sqlite|mysql|psql)_history|lesshst|viminfo|wget-hsts)$/,
    says: 'history of a program',
  },
  // Caches: whoever reads them makes them anew when they are missing or old, man's and Python's included.
  { match: under('var', 'cache/(?!debconf/[^/]+\\.dat).+'), says: 'cache' },
  { match: /(?:^|\/)\.cache\/.+$/, says: 'cache' },
  { match: /\.py[co]$/, says: 'cache of Python' },
  // Spool and what lives as long as a boot.
  { match: under('var', 'spool/.+'), says: 'spool' },
  { match: /^var\/mail\/.+$/, says: 'spool' },
  { match: /^var\/(?:tmp|run|lock)\/.+$/, says: 'temporary' },
  { match: /^tmp\/.+$/, says: 'temporary' },
  // Stamps: when something last ran here.
  { match: /^(?:etc|var)?\/?\.updated$/, says: 'stamp' },
  { match: under('var', 'lib/apt/periodic/.+'), says: 'stamp' },
  { match: under('var', 'lib/systemd/timers/stamp-.+'), says: 'stamp' },
  { match: under('var', 'lib/systemd/timesync/clock'), says: 'stamp' },
  { match: under('var', 'lib/logrotate/status'), says: 'stamp' },
  { match: /(?:^|\/)[^/]+-stamp$/, says: 'stamp' },
  // Learned from this guest's clock and network.
  { match: under('etc', 'adjtime'), says: 'drift of the clock' },
  { match: under('var', 'lib/(?:ntp|ntpsec|chrony)/[^/]*drift[^/]*'), says: 'drift of the clock' },
  { match: under('var', 'lib/(?:dhcp|dhcpcd|NetworkManager)/.+'), says: 'lease' },
  // Lock and state of the running system.
  { match: under('etc', '\\.pwd\\.lock'), says: 'lock file' },
  { match: under('etc', 'mtab'), says: 'state of the running system' },
];

const ignoredBy = anyOf(ignoreRules);

export function isIgnored(path: string): string | null {
  // What git keeps beneath .git/logs or names x.log is a part of the repository.
  return gitDirectory(path) === null ? ignoredBy(path) : null;
}

// One record per line or stanza, keyed by a name or number that must be unique: what a line merge makes of two
// additions can be two users with one uid. Until record merges exist they are conflicts if both sides changed.
const recordPath = under(
  'var',
  '(?:lib/(?:dpkg/(?:(?:status|available|statoverride|diversions)(?:-old)?|triggers/[^/]+)|apt/extended_states)' +
    '|cache/debconf/[^/]+\\.dat(?:-old)?)',
);

/** Account files: anywhere that may be an /etc; dpkg's, apt's and debconf's by their full path. */
export function isRecordFormat(path: string): boolean {
  if (accountFiles.includes(baseName(path)) && inEtc(path)) return true;
  return recordPath.test(path);
}

// Made from other files by a command. A guest's holds what only the guest has (/usr/local/lib, private CAs), so
// the base's cannot stand in for it.
const generatedRules: Rule[] = [
  { match: under('etc', 'ld\\.so\\.cache'), says: 'ldconfig' },
  { match: under('etc', 'ssl/certs/ca-certificates\\.crt'), says: 'update-ca-certificates' },
  { match: under('etc', 'ssl/certs/java/cacerts'), says: 'update-ca-certificates' },
  { match: under('etc', 'pki/(?:ca-trust/extracted|java)/.+'), says: 'update-ca-trust' },
  { match: under('etc', 'aliases\\.db'), says: 'newaliases' },
  { match: /^(?:etc|(?:usr\/)?lib)\/udev\/hwdb\.bin$/, says: 'systemd-hwdb update' },
  { match: /^usr\/(?:local\/)?share\/mime\/mime\.cache$/, says: 'update-mime-database /usr/share/mime' },
  { match: /^usr\/(?:local\/)?share\/applications\/mimeinfo\.cache$/, says: 'update-desktop-database' },
  { match: /^usr\/(?:local\/)?share\/icons\/.+\/icon-theme\.cache$/, says: 'gtk-update-icon-cache' },
  { match: /^usr\/(?:local\/)?share\/glib-2\.0\/schemas\/gschemas\.compiled$/, says: 'glib-compile-schemas' },
  { match: /^usr\/lib\/locale\/locale-archive$/, says: 'locale-gen' },
  { match: /^(?:usr\/)?lib\/modules\/[^/]+\/modules\.[^/]+$/, says: 'depmod' },
  { match: /^boot\/initrd\.img-[^/]+$/, says: 'update-initramfs -u' },
  { match: /^boot\/grub\/grub\.cfg$/, says: 'update-grub' },
];

/** The command that makes it anew; null: it is not generated. */
export const isGenerated = anyOf(generatedRules);

/** The repository's directory that a path is in (or is); null: in none. */
function gitDirectory(path: string): string | null {
  if (!path.includes('.git')) return null;
  const parts = path.split('/');
  const at = parts.indexOf('.git');
  if (at < 0) return null;
  return parts.slice(0, at + 1).join('/');
}

const databaseName = /\.(?:db|db3|sqlite|sqlite3)$/;
const databaseTail = /-(?:wal|journal|shm)$/;

/** NAME of a database that a path is a part of: itself, or what SQLite puts beside it. */
function databaseOf(path: string): string | null {
  if (databaseTail.test(path)) {
    const name = path.replace(databaseTail, '');
    return baseName(name) === '' ? null : name;
  }
  return databaseName.test(path) && isGenerated(path) === null ? path : null;
}

/**
 * The set that a path belongs to. A database with another ending is one only by the -wal, -journal or -shm
 * beside it: the caller, who can see whether those exist, asks for `databaseSet` then.
 */
export function setOf(path: string): PathSet | null {
  const git = gitDirectory(path);
  if (git !== null) return { id: git, kind: 'git', members: null };
  const dir = parentPath(path);
  if (accountFiles.includes(baseName(path)) && inEtc(path)) {
    const members = accountFiles.map((name) => (dir === '' ? name : `${dir}/${name}`));
    return { id: members[0] as string, kind: 'accounts', members };
  }
  const database = databaseOf(path);
  return database === null ? null : databaseSet(database);
}

/** The set of the database NAME, whatever its ending. */
export function databaseSet(name: string): PathSet {
  return { id: name, kind: 'database', members: [name, `${name}-wal`, `${name}-journal`, `${name}-shm`] };
}

// Within .git only these are written by people; a merged index, ref or packed-refs is a broken repository.
const gitText = /\.git\/(?:config|description|info\/[^/]+|hooks\/[^/]+)$/;

export function isLineMergeable(path: string): boolean {
  return !isRecordFormat(path) && isIgnored(path) === null && isOfLines(path);
}

/** Of what is neither ignored nor of a record format. */
function isOfLines(path: string): boolean {
  if (isGenerated(path) !== null) return false;
  if (gitDirectory(path) !== null) return gitText.test(path);
  // Not every x-journal is a rollback journal: a text of that name is a set of one, and may be merged.
  const database = databaseOf(path);
  return database === null || (path.endsWith('-journal') && !databaseName.test(database));
}

/**
 * Whether the ancestor's bytes are kept. Of record formats they are: for diff now, for record merges later.
 * A binary of that size is kept too, unless the caller has looked into it (looksBinary).
 */
export function mergeable(path: string, osTree: boolean, size: number): boolean {
  if (size > MAX_TEXT || scopeOf(path, osTree) === 'out' || isIgnored(path) !== null) return false;
  return isRecordFormat(path) || isOfLines(path);
}

export function looksBinary(bytes: Uint8Array): boolean {
  return bytes.includes(0);
}

export function policyOf(path: string, osTree: boolean): Policy {
  return {
    inScope: scopeOf(path, osTree) === 'in',
    ignored: isIgnored(path),
    generated: isGenerated(path),
    record: isRecordFormat(path),
    lines: isLineMergeable(path),
    set: setOf(path),
  };
}
