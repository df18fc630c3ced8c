import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errorBody, rawErrorAnswer, statusOf, toApiError } from '../../../node/api/errors.ts';
import { ERROR_TABLE, type ErrorCode, MeshError } from '../../../node/common/errors.ts';

describe('errors of the facade', () => {
  it('take status and type from the one table', () => {
    for (const [code, { httpStatus, openaiType }] of Object.entries(ERROR_TABLE)) {
      const error = new MeshError(code as ErrorCode, 'text', { param: 'model' });
      assert.equal(statusOf(error), httpStatus);
      assert.deepEqual(errorBody(error), { error: { message: 'text', type: openaiType, param: 'model', code } });
    }
  });

  it("pass a remote server's failure status on, and nothing that is no failure", () => {
    assert.equal(statusOf(new MeshError('upstream_error', '', { httpStatus: 529 })), 529);
    assert.equal(statusOf(new MeshError('upstream_error', '', { httpStatus: 200 })), 502);
    assert.equal(statusOf(new MeshError('engine_failed', '', { httpStatus: 404 })), 500);
  });

  it('hide what an unknown error says', () => {
    const error = toApiError(new Error('secret path /home/x'));
    assert.equal(error.code, 'internal_error');
    assert.equal(JSON.stringify(errorBody(error)).includes('secret'), false);
    assert.equal(toApiError(null).code, 'internal_error');
  });

  it('answer bytes that are not HTTP with a whole HTTP answer', () => {
    const answer = rawErrorAnswer(Object.assign(new Error('x'), { code: 'HPE_INVALID_METHOD' }));
    assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
    assert.match(answer, /"code":"invalid_request"/);
    assert.match(
      rawErrorAnswer(Object.assign(new Error('x'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' })),
      /^HTTP\/1\.1 408 /,
    );
  });
});
