// `kasane diff`: what the guest changed (ancestor to overlay), and what that is against the base now.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { type Json, pathJson, sideJson } from '../control/json.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { shown } from './paths.ts';
import { withTarget } from './targets.ts';
import { sideDiff } from './unified.ts';

export function addDiff(program: Command, context: Context): void {
  program
    .command('diff <path>')
    .description('what this guest changed, against its ancestor and against the base now. Exit 1 if anything')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane diff /mnt/web1/etc/ssh/sshd_config'))
    .action(
      ending(context, async (path: string, opts: { json?: boolean }) => {
        let differ = false;
        const all: Json[] = [];
        await withTarget(path, (target) =>
          target.verbs.diff({ path: target.path }, async (item) => {
            const known = item.ancestor.type !== 'unknown';
            const own = known ? await sideDiff(item, 'ancestor', 'overlay') : Buffer.alloc(0);
            const base = await sideDiff(item, 'overlay', 'base');
            if (own.length > 0 || base.length > 0 || item.changing) differ = true;
            if (opts.json) {
              all.push({
                ...pathJson(item.path),
                ancestor: sideJson(item.ancestor),
                overlay: sideJson(item.overlay),
                base: sideJson(item.base),
                ancestorToOverlay: own.toString('utf8'),
                overlayToBase: base.toString('utf8'),
                changing: item.changing,
              });
              return;
            }
            if (item.changing) context.io.out(`# ${shown(item.path)}\n# it keeps changing\n`);
            await context.io.outBytes(own);
            // Where the base is still what it was, the way to it is the way back, and says nothing new.
            const moved = known && (await sideDiff(item, 'ancestor', 'base')).length > 0;
            if (moved || own.length === 0) await context.io.outBytes(base);
          }),
        );
        if (opts.json) context.io.json(all);
        return differ ? EXIT.conflicts : EXIT.ok;
      }),
    );
}
