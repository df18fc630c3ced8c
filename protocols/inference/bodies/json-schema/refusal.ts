import { MeshError } from '../../../../node/common/errors.ts';

/** @param param where the keyword stands in the request. */
export function refusal(param: string, reason: string): MeshError {
  return new MeshError('invalid_request', `'${param}' ${reason}`, { param });
}
