// `kasane umount`: takes a mount away and waits until its daemon has written everything and ended. A dead one
// is detached.
import type { Command } from 'commander';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import { type Found, isAlive, readRegistrations, removeRegistration } from '../control/registry.ts';
import { resolveOutside } from '../control/resolve.ts';
import { E, errnoName } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { detach, isDead, unmount } from './detach.ts';
import { absolute, shown, workingDirectory } from './paths.ts';
import { kasaneMounts } from './targets.ts';

const DAEMON_END_MS = 60_000;
const BUSY_MS = 500;

export function addUmount(program: Command, context: Context): void {
  program
    .command('umount <mountpoint>')
    .description('take a mount away; one whose daemon is dead is detached')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane umount /mnt/web1'))
    .action(
      ending(context, (typed: string, opts: { json?: boolean }) =>
        umount(context, typed, opts.json === true),
      ),
    );
}

async function umount(context: Context, typed: string, json: boolean): Promise<ExitCode> {
  const { io } = context;
  const mounts = kasaneMounts();
  const resolved = resolveOutside(absolute(typed, workingDirectory()), new Set(mounts.keys()));
  const registered = readRegistrations().filter((one) => one.registration.mountPoint === resolved.path);
  const told = (detached: boolean, message: string) => {
    if (json) io.json({ mountPoint: shown(resolved.path), detached });
    else if (message !== '') io.out(`${shown(resolved.path)}: ${message}\n`);
    return EXIT.ok;
  };
  if (resolved.stop === null) {
    if (registered.length === 0 || registered.some((one) => one.alive)) {
      throw new FsError(E.ENOTCONN, `${shown(typed)}: not a Kasane mount: kasane list shows those there are`);
    }
    forget(registered);
    return told(true, 'was unmounted already; its daemon is dead');
  }
  if (resolved.rest !== '') {
    throw new FsError(E.EINVAL, `${shown(typed)}: not a mount point: kasane umount ${shown(resolved.stop)}`);
  }
  const live = registered.find((one) => one.alive);
  if (live === undefined && (registered.length > 0 || (await isDead(resolved.path)))) {
    await detach(resolved.path);
    forget(registered);
    return told(true, 'its daemon was dead: detached');
  }
  const result = await unmountUnlessBusy(resolved.path, live !== undefined);
  if (result === -E.EBUSY) {
    throw new FsError(E.EBUSY, `${shown(resolved.path)}: busy: somebody works in it (fuser -vm shows who)`);
  }
  if (result < 0) {
    throw new FsError(-result, `${shown(resolved.path)}: cannot be unmounted (${errnoName(result)})`);
  }
  if (live !== undefined) {
    await daemonEnd(live);
    forget([live]);
  }
  return told(false, '');
}

/** As unmount. The daemon itself is in its mount now and then, for some milliseconds, to tell guests of a change. */
async function unmountUnlessBusy(mountPoint: string, serves: boolean): Promise<number> {
  const until = Date.now() + (serves ? BUSY_MS : 0);
  for (;;) {
    const result = await unmount(mountPoint, false);
    if (result !== -E.EBUSY || Date.now() >= until) return result;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function forget(registered: readonly Found[]): void {
  for (const one of registered) removeRegistration(one.registration.mountPoint, one.dir);
}

async function daemonEnd(live: Found): Promise<void> {
  const until = Date.now() + DAEMON_END_MS;
  while (isAlive(live.registration)) {
    if (Date.now() > until) {
      const { pid } = live.registration;
      throw new FsError(E.EBUSY, `unmounted, but its daemon (pid ${pid}) still has work to finish`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
