// All operations of the fuse-native transport.
import type { NativeHandlers } from '../../fuse/native/handlers.ts';
import { attributeHandlers } from './attributes.ts';
import { fileHandlers } from './files.ts';
import type { NativeFront } from './front.ts';
import { nameHandlers } from './names.ts';

export function nativeHandlersOf(front: NativeFront): NativeHandlers {
  return { ...nameHandlers(front), ...attributeHandlers(front), ...fileHandlers(front) };
}
