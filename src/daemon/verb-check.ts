// `check`: the overlay compared with its index, and what the store finds in itself. Changes nothing.
import { notThereYet } from '../control/protocol.ts';
import type { CheckItem, CheckReport, CheckRequest, Emit } from '../control/verbs.ts';
import { isRegular } from '../lib/stat.ts';
import { mergeable } from '../merge/policy.ts';
import { originFor } from '../union/origin-list.ts';
import { readOverlay } from '../union/sides.ts';
import { basePathOf, type OverlayEntry, walkOverlay } from '../union/walk-overlay.ts';
import { namesIn } from '../versions/files.ts';
import type { Origin } from '../versions/origin.ts';
import type { MountContext } from './context.ts';
import { fingerprintAt, hasContent } from './survey.ts';

export async function check(
  context: MountContext,
  request: CheckRequest,
  emit: Emit<CheckItem>,
): Promise<CheckReport> {
  if (request.repair) throw notThereYet('--repair');
  await context.bringUpToDate();
  const report: CheckReport = { objects: 0, origins: 0, ancestors: 0, records: 0, damage: 0, warnings: 0 };
  const tell = async (item: CheckItem) => {
    if (item.severity === 'damage') report.damage += 1;
    else report.warnings += 1;
    await emit(item);
  };
  const { records, ancestors } = await context.store.check(tell);
  report.records = records;
  report.ancestors = ancestors;
  const doubtful: string[] = [];
  for await (const entry of walkOverlay(context.branches.overlay)) {
    report.objects += 1;
    report.origins += entry.origins.length;
    if (context.branches.layers.length > 0 && !hasContent(context.branches, entry)) {
      const message =
        'a copy of metadata alone, whose content is not in the base (any more): reading it fails';
      await tell({ severity: 'warning', code: 'content-missing', path: entry.path, message });
    }
    await checkEntry(context, entry, doubtful, tell);
  }
  await findStrays(context, doubtful);
  await checkRecords(context, doubtful, tell);
  await checkDisplaced(context, tell);
  if (context.mounted === null) await checkWork(context, tell);
  return report;
}

type Tell = (item: CheckItem) => Promise<void>;

async function checkEntry(
  context: MountContext,
  entry: OverlayEntry,
  doubtful: string[],
  tell: Tell,
): Promise<void> {
  const { path, kind, basePath } = entry;
  if (entry.originDamaged) {
    const message = 'its origin cannot be read: nobody knows any more what the base had here';
    await tell({ severity: 'damage', code: 'origin-unreadable', path, message });
    return;
  }
  const origin = originFor(entry.origins, basePath);
  if (kind === 'dir' || origin === null) return;
  if (context.store.paths.get(path) === null) doubtful.push(path);
  if (kind === 'object') await checkAncestor(context, entry, origin, tell);
}

async function checkAncestor(
  context: MountContext,
  entry: OverlayEntry,
  origin: Origin,
  tell: Tell,
): Promise<void> {
  const { content, fingerprint } = origin;
  const { path, basePath, stat } = entry;
  const { branches, osTree, store } = context.reconciler.context;
  if (content === '' || !isRegular(origin.mode) || !mergeable(path, osTree, stat.size)) return;
  if (store.ancestors.has(content) || fingerprintAt(branches, basePath) === fingerprint) return;
  const message = `ancestor ${content} is missing: when both sides have changed, it cannot be merged`;
  await tell({ severity: 'warning', code: 'ancestor-missing', path, message });
}

const wantedFor = (state: string) => (state === 'W' ? 'whiteout' : 'object');

/** Records of what is not there. */
async function findStrays(context: MountContext, doubtful: string[]): Promise<void> {
  const { branches, store } = context.reconciler.context;
  for await (const { path, state } of store.paths.under('')) {
    if (readOverlay(branches, path, path).state !== wantedFor(state)) doubtful.push(path);
  }
}

/** Where overlay and index did not agree they are compared once more: a guest may be at work. */
async function checkRecords(context: MountContext, doubtful: readonly string[], tell: Tell): Promise<void> {
  if (doubtful.length > 0) await context.bringUpToDate();
  const { branches, store } = context.reconciler.context;
  for (const path of doubtful) {
    const record = store.paths.get(path);
    const overlay = readOverlay(branches, path, basePathOf(branches.overlay, path));
    if (record === null && overlay.origin !== null && overlay.state !== 'none') {
      const message = 'it has an origin, and the index does not know it: it will at the next look';
      await tell({ severity: 'warning', code: 'record-missing', path, message });
    }
    if (record === null || overlay.state === wantedFor(record.state)) continue;
    const there = { none: 'nothing', whiteout: 'a whiteout', object: 'an object' }[overlay.state];
    const spoken = record.state === 'W' ? 'a whiteout' : 'a copy';
    const message = `the index speaks of ${spoken}, the overlay has ${there}`;
    await tell({ severity: 'warning', code: 'record-stray', path, message });
  }
}

/** What was put aside lies under the number of the conflict that tells of it, open or closed. */
async function checkDisplaced(context: MountContext, tell: Tell): Promise<void> {
  const { conflicts } = context.store;
  for (const name of namesIn(`${context.branches.stateDir}/displaced`)) {
    if (/^[1-9][0-9]*$/.test(name) && conflicts.get(Number(name)) !== null) continue;
    const message = `displaced/${name} lies aside, and no conflict tells of it: what the guest had in it is there alone`;
    await tell({ severity: 'warning', code: 'orphan-displaced', path: '', message });
  }
}

async function checkWork(context: MountContext, tell: Tell): Promise<void> {
  for (const name of namesIn(`${context.branches.stateDir}/work`)) {
    const message = `work/${name} was left behind: the next mount removes it`;
    await tell({ severity: 'warning', code: 'orphan-work', path: '', message });
  }
}
