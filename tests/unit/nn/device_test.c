/*
 * device_test.c - opening devices by kind.
 */
#include "nn_check.h"

static void test_kinds(void)
{
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_EQ_INT(dr_pool_threads(nn_device_pool(dev)), 2);
    CHECK(strncmp(nn_device_describe(dev), "cpu, 2 threads, ", 16) == 0);
    nn_device_close(dev);
    CHECK_OK(nn_device_open(&dev, "ref", 1));
    CHECK_STR(nn_device_describe(dev), "ref, 1 thread");
    nn_device_close(dev);
    CHECK_OK(nn_device_open(&dev, "cpu", 0));
    CHECK_EQ_INT(dr_pool_threads(nn_device_pool(dev)), dr_cpu_count());
    nn_device_close(dev);
    nn_device_close(NULL);
}

static void test_unknown(void)
{
    nn_device *dev = NULL;

    CHECK_STATUS(nn_device_open(&dev, "tpu", 1), DR_EUSAGE);
    CHECK_TRAIL("unknown device 'tpu'");
    CHECK_TRAIL("cpu");
    CHECK(dev == NULL);
}

int main(void)
{
    test_kinds();
    test_unknown();
    return check_done();
}
