// The model of the union that the random test of updates holds mounts against, where it has been wrong.
import { expect, test } from 'vitest';
import { type Obj, type Tree, UnionModel } from '../model/union-model.ts';

const file = (content: string): Obj & { type: 'file' } => ({ type: 'file', content, mode: 0o644 });

function modelOf(base: Tree): UnionModel {
  const model = new UnionModel(base, () => {});
  model.readAll();
  return model;
}

/** A guest's file over an origin that the base has written over in place; `f` in the base is v2 by now. */
function overHidden(hide: (model: UnionModel) => void): { model: UnionModel; base: Tree; v1: Obj } {
  const v1 = file('v1\n');
  const base: Tree = new Map([
    ['d', { type: 'dir' } as Obj],
    ['d/f', v1],
  ]);
  const model = modelOf(base);
  hide(model);
  base.set('d/f', file('in place\n'));
  model.overwritten('d/f');
  base.set('d/f', file('v2\n'));
  model.write('d/f', file('own\n'));
  model.reconcile();
  return { model, base, v1 };
}

test('a version that the guest has removed is known: once the base is back at it, the conflict is over', () => {
  const { model, base, v1 } = overHidden((one) => {
    one.unlink('d');
    one.mkdir('d');
  });
  expect(model.conflicts()).toEqual(['d/f']);
  base.set('d/f', { ...v1 });
  model.reconcile();
  expect(model.conflicts()).toEqual([]);
});

test('a version that was only read is gone when the base writes over it: the conflict stays', () => {
  const { model, base, v1 } = overHidden((one) => {
    one.renameDir('d', 'e');
    one.mkdir('d');
  });
  expect(model.conflicts()).toEqual(['d/f']);
  base.set('d/f', { ...v1 });
  model.reconcile();
  expect(model.conflicts()).toEqual(['d/f']);
});
