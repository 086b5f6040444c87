// `status` and `metrics`: what there is, counted.
import { baseMoved } from '../branch/base.ts';
import type { MountOptions } from '../control/mount-options.ts';
import type { Gauge, MetricsReport, StatusCounts, StatusReport } from '../control/verbs.ts';
import { packageVersion } from '../lib/version.ts';
import { readIfThere } from '../versions/files.ts';
import type { PathState } from '../versions/types.ts';
import type { WatcherReport } from './base-watcher.ts';
import { doubtNote, overlayIsGone } from './branches.ts';
import { type Coherence, chooseCoherence } from './coherence.ts';
import type { MountContext } from './context.ts';
import type { WorkerCounts } from './messages.ts';
import { type Survey, Surveyor } from './survey.ts';

/** Sizes on disk are added up anew after this time. */
const SIZES_MS = 10_000;

type Sizes = { index: number; ancestors: number; history: number };

export interface StatusVerbs {
  status(): Promise<StatusReport>;
  metrics(): Promise<MetricsReport>;
}

export function statusVerbs(context: MountContext): StatusVerbs {
  const { store } = context;
  const surveyor = new Surveyor(context);
  let states: { changes: number; counts: Record<PathState, number> } | null = null;
  let sizes: { at: number; value: Sizes } | null = null;

  const countStates = async () => {
    const { changes } = store.paths;
    if (states?.changes === changes) return states.counts;
    const counts: Record<PathState, number> = { C: 0, P: 0, K: 0, X: 0, U: 0, W: 0 };
    for await (const record of store.paths.under('')) counts[record.state] += 1;
    states = { changes, counts };
    return counts;
  };
  const sizesNow = async () => {
    if (sizes === null || performance.now() - sizes.at > SIZES_MS) {
      sizes = { at: performance.now(), value: await store.sizes() };
    }
    return sizes.value;
  };

  return {
    status: async () => {
      await context.bringUpToDate();
      const survey = await surveyor.now(store.events.last);
      const counts = countsOf(survey, await countStates(), store.conflicts.all().length);
      return report(context, survey, counts, await sizesNow(), await context.counts());
    },
    metrics: async () => {
      const counts = await context.counts();
      return {
        opcodes: counts?.opcodes ?? [],
        gauges: gauges(context, counts, await countStates(), await sizesNow()),
      };
    },
  };
}

function countsOf(survey: Survey, states: Record<PathState, number>, conflicts: number): StatusCounts {
  const { copies, whiteouts, hidden, stale, metadataOnly, withoutContent } = survey;
  return {
    copies,
    whiteouts,
    hidden,
    stale,
    pending: states.P,
    kept: states.K,
    conflicts,
    undone: states.U,
    metadataOnly,
    withoutContent,
  };
}

/** Where the base stands: see StatusReport. */
export function baseStateOf(context: MountContext): StatusReport['base'] {
  const { layers } = context.branches;
  if (layers.length === 0 || layers.some((layer) => baseMoved(layer) < 0)) return 'absent';
  if (context.doubt !== null) return 'unaccepted';
  return context.reconciler.acceptance.state;
}

function report(
  context: MountContext,
  survey: Survey,
  counts: StatusCounts,
  sizes: Sizes,
  serving: WorkerCounts | null,
): StatusReport {
  const { options, branches, store, mounted, doubt } = context;
  const coherence = context.coherence?.() ?? chooseCoherence(options);
  const refused = serving?.watchesRefused ?? 0;
  const watcher = watcherOf(context, coherence, refused);
  const notes = [...context.notes];
  const base = baseStateOf(context);
  if (base === 'unaccepted' && doubt !== null) notes.push(doubtNote(doubt));
  if (overlayIsGone(branches)) {
    notes.push('the overlay has been removed: what it held is lost, and nothing can be changed; unmount');
  }
  if (refused > 0) notes.push(limitNote());
  return {
    version: packageVersion(),
    mountPoint: options.mountPoint,
    bases: options.bases,
    overlay: options.overlay,
    state: branches.stateDir,
    pid: mounted?.pid ?? 0,
    started: mounted?.started ?? 0,
    epoch: store.events.epoch,
    base,
    coherence: coherenceName(coherence),
    bound: coherence.seconds,
    watches: serving?.watches ?? 0,
    watcher: watcher.by,
    watcherReason: watcher.why,
    readOnly: options.readOnly,
    copying: context.copies?.all.map((one) => ({ ...one })) ?? [],
    counts,
    bytes: { overlay: survey.bytes, ...sizes },
    options: mounted === null ? {} : optionsByName(options, coherence, mounted.keepsAwake),
    overlayfsOptions: overlayfsOptions(branches.overlay.xattrPrefix === 'user.', survey),
    notes,
  };
}

/** With userxattr overlayfs knows neither redirects nor metacopies: nothing is to be given out that it refuses. */
function overlayfsOptions(user: boolean, { redirects, metadataOnly }: Survey): string {
  const special = redirects || metadataOnly > 0;
  if (user) return special ? '' : 'userxattr';
  return special ? 'metacopy=on,redirect_dir=on' : '';
}

function watcherOf(context: MountContext, coherence: Coherence, refused: number): WatcherReport {
  if (context.mounted === null) return { by: 'none', why: 'it is not mounted' };
  const report = coherence.keeping === 'watched' ? context.watcher?.() : null;
  if (!report) return { by: 'none', why: `coherence is ${coherenceName(coherence)}` };
  return report.by === 'inotify' && refused > 0 ? { by: 'inotify', why: `as far as ${LIMIT} goes` } : report;
}

const coherenceName = ({ mode, seconds }: Coherence) => (mode === 'ttl' ? `ttl=${seconds}` : mode);

const LIMIT = '/proc/sys/fs/inotify/max_user_watches';

function limitNote(): string {
  const limit = readIfThere(LIMIT)?.toString('latin1').trim() ?? 'unknown';
  return `not all of the base could be watched, and is asked each time instead: raise fs.inotify.max_user_watches (${limit})`;
}

const onOff = (value: boolean) => (value ? 'on' : 'off');

const watchName = (wish: MountOptions['watch']) =>
  wish.by === 'auto' && wish.at !== null ? `auto=${wish.at}` : wish.by;

/** By their names on the command line. Paths are inner names. */
function optionsByName(
  options: MountOptions,
  coherence: Coherence,
  keepsAwake: boolean,
): Record<string, string> {
  const { copyUpLimit, policy, log, allowOther } = options;
  return {
    coherence: coherenceName(coherence),
    watch: watchName(options.watch),
    settle: String(options.settleMs / 1000),
    export: options.export,
    volatile: onOff(options.volatile),
    metacopy: onOff(options.metacopy),
    'redirect-dir': onOff(options.redirectDir),
    whiteouts: options.whiteouts,
    ...(copyUpLimit === null ? {} : { 'copy-up-limit': String(copyUpLimit) }),
    transport: options.transport,
    'cpu-latency': keepsAwake ? 'low' : 'off',
    ...(policy === null ? {} : { policy }),
    ...(log === null ? {} : { log }),
    ro: onOff(options.readOnly),
    suid: onOff(options.suid),
    dev: onOff(options.dev),
    exec: onOff(options.exec),
    atime: onOff(options.atime),
    allow_other: onOff(allowOther ?? process.geteuid?.() === 0),
    fsname: options.fsname,
  };
}

function gauges(
  { store }: MountContext,
  counts: WorkerCounts | null,
  states: Record<PathState, number>,
  sizes: Sizes,
): Gauge[] {
  const gauge = (name: string, help: string, value: number): Gauge => ({ name, help, type: 'gauge', value });
  return [
    gauge('nodes', 'Objects that the kernel knows by a nodeid.', counts?.nodes ?? 0),
    gauge('handles', 'Open files.', counts?.handles ?? 0),
    gauge('directory_fds', 'Descriptors of directories that are kept open.', counts?.directoryFds ?? 0),
    gauge('watches', 'Directories and files of the base that are watched.', counts?.watches ?? 0),
    gauge('jobs', 'Jobs under way on other threads.', counts?.pending ?? 0),
    gauge('rss_bytes', 'Resident memory of the daemon.', process.memoryUsage.rss()),
    gauge('pending', 'Stale objects that are not merged yet.', states.P),
    gauge('kept', 'Stale objects that stay as the guest has them.', states.K),
    gauge('conflicts', 'Open conflicts.', store.conflicts.all().length),
    gauge('undone', 'Objects at which a version of the base was refused.', states.U),
    { ...gauge('epoch', 'Settled changes of the base.', store.events.epoch), type: 'counter' },
    gauge('ancestors_bytes', 'Kept contents, allocated on disk.', sizes.ancestors),
    gauge('history_bytes', 'Kept contents that only the history needs.', sizes.history),
    gauge('index_bytes', 'Size of the index.', sizes.index),
  ];
}
