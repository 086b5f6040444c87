// `kasane mount`, and the form in which mount.fuse3 calls: `kasane SOURCE MNT -o base=...,overlay=...`.
import * as fs from 'node:fs';
import type { Command } from 'commander';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import type { MountOptions } from '../control/mount-options.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { loadDaemon } from './daemon.ts';
import { usage } from './io.ts';
import { type OptionWord, parseMountOptions, parseOptionList } from './mount-options.ts';
import { bytesOf, shown, workingDirectory } from './paths.ts';
import { startDaemon } from './start-daemon.ts';
import { thisHost, validateMount } from './validate.ts';

/** [flags, help], in the order of the help text. */
const flags: readonly (readonly [string, string])[] = [
  ['--base <dir[:dir...]>', 'the tree that guests share, topmost first; never written to'],
  ['--overlay <dir>', "the guest's own directory, in the format of overlayfs"],
  ['--coherence <how>', 'notify, check or ttl=SECONDS (by itself: notify on a local base)'],
  [
    '--watch <how>',
    'with notify: inotify, fanotify (as root), auto or auto=WATCHES: fanotify from so many on',
  ],
  ['--settle <seconds>', 'how long the base must have been still before it is merged (default: 2)'],
  ['--export[=nfs4]', 'file handles survive a restart, for an NFS server; nfs4: no client speaks NFSv3'],
  [
    '--state <dir>',
    "directory of Kasane's own state, on the overlay's file system (default: OVERLAY/.kasane)",
  ],
  ['--volatile', 'no syncs: after a power loss the overlay may be damaged'],
  ['--metacopy <on|off>', 'copy up metadata alone where that is enough (default: on)'],
  ['--redirect-dir <on|off>', 'let directories of the base be renamed (default: on)'],
  ['--whiteouts <form>', 'of the base: overlayfs, or oci: also files named .wh.NAME (default: overlayfs)'],
  ['--copy-up-limit <bytes>', 'refuse to copy up larger files; also with K, M, G, T'],
  [
    '--transport <which>',
    'direct, or fuse-native: by libfuse 2, slower, with fewer features (default: direct)',
  ],
  [
    '--cpu-latency <how>',
    'low: idle processors poll while requests are many; off; auto: low in virtual machines of up to eight processors',
  ],
  ['--policy <file>', 'rules of merging (not there yet)'],
  ['--log <file>', 'log there instead of to syslog'],
  ['--foreground', 'stay, and log to stderr'],
  ['--debug', 'trace every request'],
];

/** `flags` as commander names them in opts(). */
const optionNames = flags.map(([flag]) => (flag.split(/[ [<]/)[0] as string).slice(2));

export function addMount(program: Command, context: Context): void {
  const command = program
    .command('mount <mountpoint>')
    .description('unite a base and an overlay, and serve them at MOUNTPOINT')
    .option(
      '-o <options>',
      'ro, noexec, noatime, suid, dev, fsname=NAME, allow_other, or any of the above as name=value',
      collect,
    )
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane mount --base /srv/base --overlay /srv/guests/web1 /mnt/web1'));
  for (const [flag, help] of flags) {
    const option = command.createOption(flag.replace('[=nfs4]', ' [how]'), help);
    option.flags = flag;
    if (flag.startsWith('--base ')) option.argParser(collect);
    command.addOption(option);
  }
  command.action(
    ending(context, async (mountPoint: string, opts: Record<string, unknown>) => {
      const words: OptionWord[] = [];
      for (const name of optionNames) {
        const value = opts[camelCase(name)];
        if (value === undefined) continue;
        const values: unknown[] = Array.isArray(value) ? value : [value];
        for (const one of values) words.push({ name, value: one === true ? null : String(one) });
      }
      for (const list of (opts.o as string[] | undefined) ?? []) words.push(...parseOptionList(list));
      const options = parseMountOptions({ words, mountPoint, source: null, cwd: workingDirectory() });
      return mount(context, options, opts.json === true ? 'json' : 'line');
    }),
  );
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

export async function mountHelper(context: Context, args: readonly string[]): Promise<ExitCode> {
  // mount(8) says nothing when all is well, and `mount -a` calls it at every boot.
  return mount(context, parseMountHelper(args, workingDirectory()), 'nothing');
}

/** Pure; throws FsError EINVAL. */
export function parseMountHelper(args: readonly string[], cwd: string): MountOptions {
  const [source = '', mountPoint = '', ...rest] = args;
  const words: OptionWord[] = [];
  for (let i = 0; i < rest.length; i++) {
    const arg = rest[i] as string;
    if (arg === '-o') {
      i += 1;
      words.push(...parseOptionList(rest[i] ?? ''));
    } else if (!/^-[nsvrw]+$/.test(arg)) {
      throw usage(`${shown(arg)}: unknown option: kasane SOURCE MOUNTPOINT -o base=DIR,overlay=DIR`);
    }
  }
  return parseMountOptions({ words, mountPoint, source, cwd });
}

async function mount(
  context: Context,
  asked: MountOptions,
  tells: 'line' | 'json' | 'nothing',
): Promise<ExitCode> {
  const { io } = context;
  const { options, notes } = await validateMount(asked, thisHost());
  for (const note of notes) io.err(`kasane: mount: ${note}`);
  const tell = (pid: number, more: readonly string[], log: string) => {
    for (const note of more) io.err(`kasane: mount: ${note}`);
    if (tells === 'json') {
      io.json({
        mountPoint: shown(options.mountPoint),
        bases: options.bases.map(shown),
        overlay: shown(options.overlay),
        pid,
        log,
        notes: [...notes, ...more],
      });
    } else if (tells === 'line') {
      const whom = `base ${options.bases.map(shown).join(':')}, overlay ${shown(options.overlay)}`;
      io.out(`${shown(options.mountPoint)}: ${whom}, pid ${pid}, log ${log}\n`);
    }
  };
  if (!options.foreground) {
    const started = await startDaemon(options);
    tell(started.pid, started.notes, started.log);
    return EXIT.ok;
  }
  const logFd = options.log === null ? 2 : fs.openSync(bytesOf(options.log), 'a', 0o600);
  const runDaemon = await loadDaemon(options);
  const log = options.log === null ? 'stderr' : shown(options.log);
  return runDaemon(options, (message) => message.ready && tell(process.pid, message.notes, log), logFd);
}
