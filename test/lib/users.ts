// Kasane without the machine's privileges: as an ordinary user through fusermount3, as that user who is root of a
// user namespace of its own, or as root of one that has many users. Each runs in a mount namespace of its own, with
// a device that anybody may open, so nothing of it is seen outside.
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as readline from 'node:readline';
import { tracked } from './cleanup.ts';
import { type Layers, mainFile } from './kasane.ts';
import { type RunResult, run, sh, waitUntil } from './run.ts';

/** nobody: fusermount3 wants a user that has a name. */
export const USER = 65534;

export type Standing = 'user' | 'namespace' | 'users';

export const usersNeed = { commands: ['fusermount3', 'unshare', 'nsenter', 'setpriv', 'getfattr'] };

export interface UsersMount {
  /** The daemon's process id, as seen from here. */
  pid: number;
  /** A command that runs another one where the mount is, as its user. */
  enter: readonly string[];
  /** A bash script where the mount is; "$1" is the mount point, "$2" Kasane's main file. As root: of the machine. */
  as: (script: string, who?: 'user' | 'root') => Promise<RunResult>;
  /** The same, which has to succeed; its output. */
  sh: (script: string) => Promise<string>;
  /** What `kasane mount` and the daemon have said. */
  said: () => string;
  umount: () => Promise<void>;
  kill: () => Promise<void>;
}

/** Who may mount with mount(2) has all of a mount namespace, so the caller enters with all of the daemon's. */
function enter(standing: Standing, pid: number, who: 'user' | 'root'): string[] {
  const inside = ['nsenter', `--target=${pid}`, '--mount'];
  if (who === 'root') return inside;
  if (standing === 'user') {
    return [...inside, 'setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'];
  }
  return [...inside, '--user', '--setuid=0', '--setgid=0'];
}

/** Makes the folders of layers a user's, with a home and a place for sockets. */
export function giveToUser(layers: Layers): Promise<string> {
  const { base, overlay, mnt, dir } = layers;
  return sh('mkdir -p "$4/home" "$4/run"; chown -hR 65534:65534 "$1" "$2" "$3" "$4/home" "$4/run"', [
    base,
    overlay,
    mnt,
    dir,
  ]);
}

const prepare = `
  mkdir -p "$1/dev"; mount -t tmpfs none "$1/dev"; mknod -m 666 "$1/dev/fuse" c 10 229
  mount --bind "$1/dev/fuse" /dev/fuse; umount -l "$1/dev"
  export HOME="$1/home" KASANE_RUNTIME_DIR= XDG_RUNTIME_DIR="$1/run"
`;

const starts: Record<Standing, string> = {
  user: `${prepare}  shift; exec setpriv --reuid=${USER} --regid=${USER} --clear-groups "$@"`,
  namespace: `${prepare}  shift
    exec setpriv --reuid=${USER} --regid=${USER} --clear-groups unshare --user --map-root-user --mount "$@"`,
  users: `${prepare}  shift
    exec unshare --user --mount bash -c 'until grep -q . /proc/self/gid_map; do sleep 0.02; done; exec "$@"' bash "$@"`,
};

/** Ids 0 to 65535 are those of the machine. Only who is privileged outside may say so. */
async function mapUsers(pid: number): Promise<void> {
  const outside = fs.readlinkSync('/proc/self/ns/user');
  await waitUntil(() => fs.readlinkSync(`/proc/${pid}/ns/user`) !== outside);
  for (const map of ['uid_map', 'gid_map']) fs.writeFileSync(`/proc/${pid}/${map}`, '0 0 65536');
}

/**
 * Mounts, with `--settle 0`; rejects with what was said where it is refused. `before`: a script for where it is going to
 * be mounted, as its user.
 */
export async function startUsersMount(
  layers: Layers,
  standing: Standing,
  options: readonly string[] = [],
  env: Record<string, string> = {},
  before = '',
): Promise<UsersMount> {
  const { base, overlay, mnt, dir } = layers;
  const prepared = ['sh', '-ec', `${before}\nexec "$@"`, 'sh'];
  const command = [
    ...prepared,
    process.execPath,
    mainFile,
    'mount',
    '--foreground',
    '--settle',
    '0',
    ...options,
  ];
  const args = ['--base', base, '--overlay', overlay, mnt];
  const outer = ['--mount', '--propagation', 'private', 'bash', '-euc', starts[standing], 'bash', dir];
  const child = spawn('unshare', [...outer, ...command, ...args], {
    cwd: '/',
    env: { ...process.env, LC_ALL: 'C', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const stop = tracked(() => stopUsersMount(child, ended));
  try {
    if (standing === 'users') await mapUsers(child.pid as number);
    const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await Promise.race([lines.next(), ended.then(() => null)]);
    if (first === null || first.done) throw new Error(`it did not serve: ${said}`);
  } catch (error) {
    await stop();
    throw error;
  }
  const pid = child.pid as number;
  const variables = ['env', `HOME=${dir}/home`, 'KASANE_RUNTIME_DIR=', `XDG_RUNTIME_DIR=${dir}/run`];
  const as: UsersMount['as'] = (script, who = 'user') => {
    const command = ['bash', '-euo', 'pipefail', '-c', script, 'bash', mnt, mainFile];
    return runOf([...variables, ...enter(standing, pid, who), ...command]);
  };
  return {
    pid,
    enter: [...variables, ...enter(standing, pid, 'user')],
    as,
    said: () => said,
    sh: async (script) => {
      const { code, stdout, stderr } = await as(script);
      if (code !== 0) throw new Error(`${stderr.trim() || stdout.trim()}\n--- said\n${said}`);
      return stdout;
    },
    umount: async () => {
      const { code, stderr } = await as(`${process.execPath} "$2" umount "$1"`);
      const end = code === 0 ? await ended : null;
      await stop();
      if (code !== 0 || end !== 0)
        throw new Error(`umount ended with ${code}, the daemon with ${end}: ${stderr}`);
    },
    kill: async () => {
      child.kill('SIGKILL');
      await stop();
    },
  };
}

function runOf([command = '', ...args]: readonly string[]): Promise<RunResult> {
  return run(command, args);
}

async function stopUsersMount(child: ChildProcess, ended: Promise<number | null>): Promise<void> {
  const over = () => child.exitCode !== null || child.signalCode !== null;
  if (over()) return;
  child.kill('SIGTERM');
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5000))]);
  if (!over()) child.kill('SIGKILL');
}

/** A mount for the time of `body`; what was said is added to the message of a test that fails in it. */
export async function withUsersMount(
  layers: Layers,
  standing: Standing,
  body: (mount: UsersMount) => Promise<void>,
  options: readonly string[] = [],
  before = '',
): Promise<void> {
  const mount = await startUsersMount(layers, standing, options, {}, before);
  try {
    await body(mount);
    await mount.umount();
  } catch (error) {
    if (error instanceof Error) error.message += `\n--- said\n${mount.said()}`;
    throw error;
  } finally {
    await mount.kill();
  }
}
