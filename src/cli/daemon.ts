// `kasane daemon`, which only `kasane mount` calls: takes the options from stdin and serves until unmounted.
// Imports little: the sooner the serving worker begins, the sooner the mount answers.
import * as fs from 'node:fs';
import { type MountOptions, READY_FD, type ReadyMessage, type RunDaemon } from '../control/mount-options.ts';
import { E } from '../lib/errno.ts';
import { FsError, messageOf } from '../lib/errors.ts';

export async function daemonMain(): Promise<number> {
  let told = false;
  const ready = (message: ReadyMessage) => {
    if (told) return;
    told = true;
    fs.writeSync(READY_FD, `${JSON.stringify(message)}\n`);
    fs.closeSync(READY_FD);
  };
  try {
    const options = JSON.parse(fs.readFileSync(0, 'utf8')) as MountOptions;
    return await (await loadDaemon(options))(options, ready, 2);
  } catch (error) {
    const errno = error instanceof FsError ? error.errno : E.EIO;
    const detail = error instanceof Error && !(error instanceof FsError) ? error.stack : messageOf(error);
    fs.writeSync(2, `${new Date().toISOString()} error main: ${detail}\n`);
    ready({ ready: false, errno, message: messageOf(error) });
    return 4;
  }
}

export async function loadDaemon({ transport }: Pick<MountOptions, 'transport'>): Promise<RunDaemon> {
  const { beginServingThread } = await import('../daemon/serving-thread.ts');
  const thread = transport === 'direct' ? beginServingThread() : null;
  const { runDaemon } = await import('../daemon/session.ts');
  return (options, ready, logFd) => runDaemon(options, ready, logFd, thread);
}
