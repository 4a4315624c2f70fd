/*
 * sign_test.c - signatures: Amazon's published examples for S3, and Shared Key as Azure's
 * own client for Python and OpenSSL compute it.
 */
#include "check.h"
#include "net/net_store.h"

static dr_arena arena;

/* docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, its four
 * examples. */
static void amazon(net_to_sign q, const char *want)
{
    const char *got = net_sign_v4(&arena, &q, "AKIAIOSFODNN7EXAMPLE",
                                  "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1",
                                  "20130524T000000Z");

    CHECK_STR(strstr(got, "Signature="), dr_arena_printf(&arena, "Signature=%s", want));
}

static void test_amazon(void)
{
    static const char none[] =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    static const char text[] =
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    static const char host[] = "examplebucket.s3.amazonaws.com";
    const char *const with_range[] = {"host",
                                      host,
                                      "range",
                                      "bytes=0-9",
                                      "x-amz-content-sha256",
                                      none,
                                      "x-amz-date",
                                      "20130524T000000Z",
                                      NULL};
    const char *const with_date[] = {"date",
                                     "Fri, 24 May 2013 00:00:00 GMT",
                                     "host",
                                     host,
                                     "x-amz-content-sha256",
                                     text,
                                     "x-amz-date",
                                     "20130524T000000Z",
                                     "x-amz-storage-class",
                                     "REDUCED_REDUNDANCY",
                                     NULL};
    const char *const plain[] = {
        "host", host, "x-amz-content-sha256", none, "x-amz-date", "20130524T000000Z", NULL};
    const char *const lifecycle[] = {"lifecycle", "", NULL};
    const char *const list[] = {"max-keys", "2", "prefix", "J", NULL};

    amazon(
        (net_to_sign){
            .method = "GET", .path = "/test.txt", .headers = with_range, .sha = none},
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    amazon((net_to_sign){.method = "PUT",
                         .path = "/test%24file.text",
                         .headers = with_date,
                         .sha = text},
           "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    amazon((net_to_sign){.method = "GET",
                         .path = "/",
                         .query = lifecycle,
                         .headers = plain,
                         .sha = none},
           "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    amazon(
        (net_to_sign){
            .method = "GET", .path = "/", .query = list, .headers = plain, .sha = none},
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

/* HMACs by `openssl dgst` of the strings that Azure's documentation says; all but the first
 * one by azure-storage-blob 12, too, which has no Range. */
static void azure(const char *account, net_to_sign q, const char *want)
{
    static const char key[] = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6"
                              "tq/K1SZFPTOtr/KBHBeksoGMGw==";

    CHECK_STR(net_sign_shared_key(&arena, &q, account, key),
              dr_arena_printf(&arena, "SharedKey %s:%s", account, want));
}

static void test_azure(void)
{
    const char *const get[] = {"x-ms-date", "Fri, 24 May 2013 00:00:00 GMT", "x-ms-version",
                               "2021-12-02", NULL};
    const char *const put[] = {
        "x-ms-blob-type", "BlockBlob",  "x-ms-date", "Fri, 24 May 2013 00:00:00 GMT",
        "x-ms-version",   "2021-12-02", NULL};
    const char *const list[] = {"comp",    "list",      "prefix", "pre/entries/",
                                "restype", "container", NULL};
    const net_to_sign none = {.method = "GET", .path = "/", .headers = get};

    azure("acct",
          (net_to_sign){.method = "GET",
                        .path = "/box/pre/content/abc",
                        .headers = get,
                        .range = "bytes=5-"},
          "mNn1mYtt1D8z1rgNkNFlx+MpBPnVwdM5MWgTOSEZNQ8=");
    azure("acct",
          (net_to_sign){.method = "PUT",
                        .path = "/box/pre/entries/k.json",
                        .headers = put,
                        .length = 12},
          "oXqf4h3SOl1uihJclgwNlZ+qCuxR4Rq3Hs1wSHsDFLw=");
    azure("acct", (net_to_sign){.method = "PUT", .path = "/box/empty", .headers = put},
          "chg4zB81fLWy8zdnhYz2XyHCMo4LFdy4u4OIl5GXsxo=");
    azure("acct",
          (net_to_sign){.method = "GET", .path = "/box", .headers = get, .query = list},
          "B3GrHx9OMxUtauB0tyZM5YaY1bOxovpu/hHvlFPpMMU=");
    azure(
        "devstoreaccount1",
        (net_to_sign){.method = "HEAD", .path = "/devstoreaccount1/box/k", .headers = get},
        "kHqKlKpMOpWpG1TKj3cYQPixEIawgsP9fRrLj+dPZtE=");
    CHECK(net_sign_shared_key(&arena, &none, "acct", "not base64!") == NULL);
    CHECK(net_sign_shared_key(&arena, &none, "acct", "") == NULL);
}

int main(void)
{
    test_amazon();
    test_azure();
    dr_arena_release(&arena);
    return check_done();
}
