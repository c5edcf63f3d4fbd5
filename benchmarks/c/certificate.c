/* certificate.c - writes a self-signed certificate for localhost (P-256, ten
 * years) and its key, as PEM: usage: certificate CERTIFICATE KEY */

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>


static int
write_pem(const char *path, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(path, "w");
    int ok;

    if (file == NULL) {
        perror(path);
        return 0;
    }
    ok = certificate ? PEM_write_X509(file, certificate)
                     : PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    return fclose(file) == 0 && ok;
}


int
main(int argc, char **argv)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    X509 *certificate = X509_new();
    EVP_PKEY *key = NULL;
    X509_NAME *name;

    if (argc != 3) {
        fputs("usage: certificate CERTIFICATE KEY\n", stderr);
        return 2;
    }
    if (context == NULL || certificate == NULL || EVP_PKEY_keygen_init(context) != 1
        || EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) != 1
        || EVP_PKEY_keygen(context, &key) != 1) {
        fputs("certificate: cannot make a key\n", stderr);
        return 1;
    }
    name = X509_get_subject_name(certificate);
    if (!X509_set_version(certificate, 2)
        || !ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1)
        || !X509_gmtime_adj(X509_getm_notBefore(certificate), -3600)
        || !X509_gmtime_adj(X509_getm_notAfter(certificate), 10L * 365 * 24 * 3600)
        || !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                       (const unsigned char *)"localhost", -1, -1, 0)
        || !X509_set_issuer_name(certificate, name)
        || !X509_set_pubkey(certificate, key)
        || !X509_sign(certificate, key, EVP_sha256())) {
        fputs("certificate: cannot sign\n", stderr);
        return 1;
    }
    return write_pem(argv[1], certificate, NULL) && write_pem(argv[2], NULL, key) ? 0 : 1;
}
