// `kasane list`: every mount of this host, from the registrations beside the sockets and from mountinfo.
import type { Command } from 'commander';
import { connectVerbs } from '../control/client.ts';
import { EXIT } from '../control/exit-codes.ts';
import type { Json } from '../control/json.ts';
import { type Found, readRegistrations } from '../control/registry.ts';
import type { StatusReport } from '../control/verbs.ts';
import { FsError } from '../lib/errors.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { shown } from './paths.ts';
import { kasaneMounts } from './targets.ts';

export interface ListedMount {
  mountPoint: string;
  bases: string[];
  overlay: string;
  pid: number;
  /** alive; dead: its daemon is gone; silent: it does not answer; unknown: another user's. */
  state: 'alive' | 'dead' | 'silent' | 'unknown';
  status: StatusReport | null;
}

const ANSWER_MS = 3000;

/** All mounts, dead ones too; `ask` is how a live one is asked for its status. */
export async function listMounts(
  registered: readonly Found[],
  mountPoints: readonly string[],
  ask: (found: Found) => Promise<StatusReport>,
): Promise<ListedMount[]> {
  const listed = await Promise.all(
    registered.map(async (found): Promise<ListedMount> => {
      const { mountPoint, bases, overlay, pid } = found.registration;
      const base = { mountPoint, bases, overlay, pid };
      if (!found.alive) return { ...base, state: 'dead', status: null };
      try {
        return { ...base, state: 'alive', status: await ask(found) };
      } catch (error) {
        if (error instanceof FsError) return { ...base, state: 'silent', status: null };
        throw error;
      }
    }),
  );
  for (const mountPoint of mountPoints) {
    if (registered.some((found) => found.registration.mountPoint === mountPoint)) continue;
    listed.push({ mountPoint, bases: [], overlay: '', pid: 0, state: 'unknown', status: null });
  }
  return listed.sort((a, b) => (a.mountPoint < b.mountPoint ? -1 : a.mountPoint > b.mountPoint ? 1 : 0));
}

export function askStatus(found: Found): Promise<StatusReport> {
  return connectVerbs(found.paths.socket, { timeoutMs: ANSWER_MS }).status();
}

function listedJson(one: ListedMount): Json {
  return {
    mountPoint: shown(one.mountPoint),
    bases: one.bases.map(shown),
    overlay: shown(one.overlay),
    pid: one.pid,
    state: one.state,
    epoch: one.status?.epoch ?? null,
    pending: one.status?.counts.pending ?? null,
    conflicts: one.status?.counts.conflicts ?? null,
  };
}

export function listTable(mounts: readonly ListedMount[]): string {
  const rows = [['MOUNT', 'BASE', 'OVERLAY', 'PID', 'EPOCH', 'PENDING', 'CONFLICTS', 'STATE']];
  for (const one of mounts) {
    rows.push([
      shown(one.mountPoint),
      one.bases.map(shown).join(':') || '-',
      shown(one.overlay) || '-',
      one.pid === 0 ? '-' : String(one.pid),
      String(one.status?.epoch ?? '-'),
      String(one.status?.counts.pending ?? '-'),
      String(one.status?.counts.conflicts ?? '-'),
      one.state,
    ]);
  }
  const widths = (rows[0] as string[]).map((_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

export function addList(program: Command, context: Context): void {
  program
    .command('list')
    .description('every mount of this host, alive or dead')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane list'))
    .action(
      ending(context, async (opts: { json?: boolean }) => {
        const mounts = await listMounts(readRegistrations(), [...kasaneMounts().keys()], askStatus);
        if (opts.json) context.io.json(mounts.map(listedJson));
        else context.io.out(listTable(mounts));
        return EXIT.ok;
      }),
    );
}
