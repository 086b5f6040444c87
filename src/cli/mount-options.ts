// From words to MountOptions: one table for `--name value` and `-o name=value`. Pure; touches no file.
import {
  type Coherence,
  defaultMountOptions,
  type MountOptions,
  type WatchWish,
} from '../control/mount-options.ts';
import { usage } from './io.ts';
import { absolute, shown } from './paths.ts';

export interface OptionWord {
  name: string;
  /** null where none was given. */
  value: string | null;
}

type Setter = (options: Draft, word: OptionWord) => void;
type Draft = MountOptions & { cwd: string };

const needed = (word: OptionWord): string => {
  if (word.value === null || word.value === '') throw usage(`${shown(word.name)}: needs a value`);
  return word.value;
};

/** on/off options; the bare name means on. */
const flag =
  (set: (options: MountOptions, on: boolean) => void): Setter =>
  (options, word) => {
    const value = word.value ?? 'on';
    if (value !== 'on' && value !== 'off') throw usage(`${word.name}=${shown(value)}: on or off`);
    set(options, value === 'on');
  };

/** Takes no value. */
const bare =
  (set: (options: MountOptions) => void): Setter =>
  (options, word) => {
    if (word.value !== null) throw usage(`${word.name}: takes no value`);
    set(options);
  };

/** One of several words. */
const oneOf =
  <T extends string>(choices: readonly T[], set: (options: MountOptions, choice: T) => void): Setter =>
  (options, word) => {
    const value = needed(word);
    const choice = choices.find((one) => one === value);
    if (choice === undefined) {
      const all = `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`;
      throw usage(`${word.name}=${shown(value)}: ${all}`);
    }
    set(options, choice);
  };

const path =
  (set: (options: MountOptions, path: string) => void): Setter =>
  (options, word) =>
    set(options, absolute(needed(word), options.cwd));

const setters: Record<string, Setter> = {
  base: (options, word) => {
    for (const one of splitEscaped(needed(word), ':')) options.bases.push(absolute(one, options.cwd));
  },
  overlay: path((options, value) => {
    options.overlay = value;
  }),
  state: path((options, value) => {
    options.state = value;
  }),
  policy: path((options, value) => {
    options.policy = value;
  }),
  log: path((options, value) => {
    options.log = value;
  }),
  coherence: (options, word) => {
    options.coherence = parseCoherence(needed(word));
  },
  watch: (options, word) => {
    options.watch = parseWatch(needed(word));
  },
  settle: (options, word) => {
    options.settleMs = Math.round(parseNumber(word, /^\d+(\.\d+)?$/, 'seconds', 86_400) * 1000);
  },
  'copy-up-limit': (options, word) => {
    options.copyUpLimit = parseBytes(word);
  },
  export: (options, word) => {
    if (word.value === 'off') options.export = 'off';
    else if (word.value === null || word.value === 'on') options.export = 'on';
    else if (word.value === 'nfs4') options.export = 'nfs4';
    else throw usage(`export=${shown(word.value)}: nfs4 or nothing`);
  },
  transport: oneOf(['direct', 'fuse-native'], (options, choice) => {
    options.transport = choice;
  }),
  'cpu-latency': oneOf(['auto', 'low', 'off'], (options, choice) => {
    options.cpuLatency = choice;
  }),
  volatile: flag((options, on) => {
    options.volatile = on;
  }),
  metacopy: flag((options, on) => {
    options.metacopy = on;
  }),
  'redirect-dir': flag((options, on) => {
    options.redirectDir = on;
  }),
  whiteouts: oneOf(['overlayfs', 'oci'], (options, choice) => {
    options.whiteouts = choice;
  }),
  foreground: flag((options, on) => {
    options.foreground = on;
  }),
  debug: flag((options, on) => {
    options.debug = on;
  }),
  suid: flag((options, on) => {
    options.suid = on;
  }),
  dev: flag((options, on) => {
    options.dev = on;
  }),
  allow_other: flag((options, on) => {
    options.allowOther = on;
  }),
  nosuid: bare((options) => {
    options.suid = false;
  }),
  nodev: bare((options) => {
    options.dev = false;
  }),
  ro: bare((options) => {
    options.readOnly = true;
  }),
  rw: bare((options) => {
    options.readOnly = false;
  }),
  exec: bare((options) => {
    options.exec = true;
  }),
  noexec: bare((options) => {
    options.exec = false;
  }),
  atime: bare((options) => {
    options.atime = true;
  }),
  noatime: bare((options) => {
    options.atime = false;
  }),
  fsname: (options, word) => {
    options.fsname = needed(word);
  },
};

/** What mount(8), fstab and systemd add for themselves; and what Kasane does anyway. */
const ignored: ReadonlySet<string> = new Set([
  'defaults',
  'auto',
  'noauto',
  'user',
  'nouser',
  'users',
  'owner',
  'group',
  '_netdev',
  'nofail',
  'relatime',
  'norelatime',
  'strictatime',
  'nostrictatime',
  'nodiratime',
  'diratime',
  'lazytime',
  'nolazytime',
  'async',
  'nosymfollow',
  'default_permissions',
  'subtype',
  'comment',
]);

/** Options that may also be spelt with an underscore in -o, as fstab users expect. */
const canonical = (name: string): string => {
  const dashed = name.replaceAll('_', '-');
  return Object.hasOwn(setters, name) ? name : Object.hasOwn(setters, dashed) ? dashed : name;
};

export interface OptionSource {
  words: readonly OptionWord[];
  mountPoint: string;
  /** Name given as SOURCE in mount.fuse3's form; null in the form with a verb. */
  source: string | null;
  cwd: string;
}

/** Throws FsError EINVAL for what is unknown, malformed or missing. */
export function parseMountOptions(from: OptionSource): MountOptions {
  const draft: Draft = {
    ...defaultMountOptions(),
    mountPoint: absolute(from.mountPoint, from.cwd),
    fsname: from.source ?? 'kasane',
    cwd: from.cwd,
  };
  for (const word of from.words) {
    const name = canonical(word.name);
    if (ignored.has(name) || name.startsWith('x-') || name.startsWith('X-')) continue;
    // mount.fuse3 adds `dev,suid` to every mount, asked for or not, and mount(8) takes them away when they
    // are (tried): in its form only suid=on and dev=on mean what they say.
    if (from.source !== null && word.value === null && (name === 'suid' || name === 'dev')) continue;
    const set = Object.hasOwn(setters, name) ? setters[name] : undefined;
    if (set === undefined) throw usage(`-o ${shown(word.name)}: unknown option: see kasane mount --help`);
    set(draft, { name, value: word.value });
  }
  if (draft.bases.length === 0) throw usage('no base: name it with --base DIR');
  if (draft.overlay === '') throw usage('no overlay: name it with --overlay DIR');
  if (draft.transport === 'fuse-native' && draft.export !== 'off')
    throw usage('--export: libfuse 2 has no handles that survive a restart: use --transport direct');
  const { cwd: _, ...options } = draft;
  return options;
}

/** The words of `-o a,b=c`; a comma within a value is written \, and a backslash \\. */
export function parseOptionList(text: string): OptionWord[] {
  return splitEscaped(text, ',')
    .filter((one) => one !== '')
    .map((one) => {
      const equals = one.indexOf('=');
      return equals < 0
        ? { name: one, value: null }
        : { name: one.slice(0, equals), value: one.slice(equals + 1) };
    });
}

/** Splits at `separator`; a backslash takes the separator or another backslash as it is. */
function splitEscaped(text: string, separator: string): string[] {
  const out: string[] = [];
  let current = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    const next = text[i + 1];
    if (c === '\\' && (next === separator || next === '\\')) {
      current += next;
      i += 1;
    } else if (c === separator) {
      out.push(current);
      current = '';
    } else {
      current += c;
    }
  }
  out.push(current);
  return out;
}

function parseCoherence(value: string): Coherence {
  if (value === 'notify' || value === 'check') return { mode: value };
  const match = /^ttl=(\d+(?:\.\d+)?)$/.exec(value);
  if (match === null) throw usage(`coherence=${shown(value)}: notify, check or ttl=SECONDS`);
  return { mode: 'ttl', seconds: Number(match[1]) };
}

function parseWatch(value: string): WatchWish {
  if (value === 'inotify' || value === 'fanotify') return { by: value };
  const match = /^auto(?:=([1-9]\d{0,8}))?$/.exec(value);
  if (match === null) throw usage(`watch=${shown(value)}: inotify, fanotify, auto or auto=WATCHES`);
  return { by: 'auto', at: match[1] === undefined ? null : Number(match[1]) };
}

function parseNumber(word: OptionWord, form: RegExp, unit: string, most: number): number {
  const value = needed(word);
  const number = Number(value);
  if (!form.test(value) || number > most) throw usage(`${word.name}=${shown(value)}: a number of ${unit}`);
  return number;
}

const units: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

function parseBytes(word: OptionWord): number {
  const match = /^(\d{1,15})([kmgt]?)$/i.exec(needed(word));
  const bytes = match === null ? Number.NaN : Number(match[1]) * (units[(match[2] ?? '').toLowerCase()] ?? 1);
  if (!Number.isSafeInteger(bytes))
    throw usage(`${word.name}=${shown(needed(word))}: a number of bytes, or with K, M, G, T`);
  return bytes;
}
