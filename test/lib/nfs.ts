// A real server of NFS (Ganesha, with the configuration that `kasane export` writes) and a real client (libnfs).
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { tracked } from './cleanup.ts';
import { kasane } from './kasane.ts';
import { isAlive, waitUntil } from './run.ts';

export const nfsCommands = ['ganesha.nfsd', 'rpcbind', 'nfs-ls', 'nfs-cat', 'nfs-cp'];

export interface NfsServer {
  /** Ends it, does what is to be done meanwhile, and starts it again. */
  restart: (meanwhile: () => Promise<unknown>) => Promise<void>;
  /** Takes the export out while it goes on, does what is to be done meanwhile, and puts it back. */
  reload: (meanwhile: () => Promise<unknown>) => Promise<void>;
}

interface Running {
  stop: () => Promise<void>;
  reload: NfsServer['reload'];
}

/** Serves a mount for the time of `body`; `dir` is for its files. */
export async function withNfsServer<T>(
  mnt: string,
  dir: string,
  body: (server: NfsServer) => Promise<T>,
): Promise<T> {
  let running = await startServer(mnt, dir);
  const restart = async (meanwhile: () => Promise<unknown>) => {
    await running.stop();
    await meanwhile();
    running = await startServer(mnt, dir);
  };
  try {
    return await body({ restart, reload: (meanwhile) => running.reload(meanwhile) });
  } finally {
    await running.stop();
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function endOf(child: ChildProcess): () => Promise<void> {
  return tracked(async () => {
    const pid = child.pid as number;
    child.kill('SIGTERM');
    if (await waitUntil(() => !isAlive(pid), 15_000)) return;
    child.kill('SIGKILL');
    await waitUntil(() => !isAlive(pid), 5000);
  });
}

async function startRpcbind(): Promise<void> {
  if (await listens(111)) return;
  endOf(spawn('rpcbind', ['-f', '-w'], { stdio: 'ignore' }));
  if (!(await waitUntil(() => listens(111), 10_000))) throw new Error('rpcbind does not listen');
}

/** With the configuration that Kasane writes, but without a grace period. */
async function startServer(mnt: string, dir: string): Promise<Running> {
  const { code, stdout, stderr } = await kasane(['export', mnt]);
  if (code !== 0) throw new Error(stderr);
  if (/^# Missing/m.test(stdout)) throw new Error(stdout);
  const config = `${dir}/ganesha.conf`;
  const log = `${dir}/ganesha.log`;
  fs.writeFileSync(config, `${stdout}NFSv4 { Graceless = true; }\n`);
  fs.writeFileSync(log, '');
  await startRpcbind();
  const child = spawn('ganesha.nfsd', ['-F', '-f', config, '-L', log, '-p', `${dir}/ganesha.pid`], {
    cwd: '/',
    stdio: 'ignore',
  });
  const stop = endOf(child);
  const ready = () =>
    fs.readFileSync(log, 'utf8').includes('NFS SERVER INITIALIZED') || child.exitCode !== null;
  const reread = async (text: string) => {
    const times = () => fs.readFileSync(log, 'utf8').split('Reread exports complete').length;
    const before = times();
    fs.writeFileSync(config, text);
    child.kill('SIGHUP');
    if (!(await waitUntil(() => times() > before, 30_000))) throw new Error('ganesha reads nothing anew');
  };
  const reload = async (meanwhile: () => Promise<unknown>) => {
    const text = fs.readFileSync(config, 'utf8');
    await reread(text.replace(/^EXPORT \{\n.*?^\}\n/ms, ''));
    await meanwhile();
    await reread(text);
  };
  if ((await waitUntil(ready, 60_000)) && child.exitCode === null && (await listens(2049)))
    return { stop, reload };
  await stop();
  throw new Error(`ganesha does not serve:\n${fs.readFileSync(log, 'utf8').slice(-3000)}`);
}

/** A client in a process of its own, which lives through restarts of the server. */
export interface NfsClient {
  /** Rejects with `code`, the errno's name. */
  call: <T = unknown>(name: string, ...args: unknown[]) => Promise<T>;
  stop: () => Promise<void>;
}

export async function startNfsClient(exported: string, version: 3 | 4): Promise<NfsClient> {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'nfs-child.mjs')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const stop = endOf(child);
  const replies = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const call = async <T>(name: string, ...args: unknown[]): Promise<T> => {
    child.stdin.write(`${JSON.stringify([name, ...args])}\n`);
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    const { value, done } = await replies.next();
    clearTimeout(timer);
    if (done) throw new Error(`the client ended in ${name}`);
    const answer = JSON.parse(value as string) as { value?: T; code?: string; message?: string };
    if (answer.code !== undefined) throw Object.assign(new Error(answer.message), { code: answer.code });
    return answer.value as T;
  };
  await call('mount', '127.0.0.1', exported, version);
  return { call, stop };
}
